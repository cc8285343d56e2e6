"""Connected parts of a mask, and which of them are meant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

SMALLEST = 0.04  # of all parts' area: a smaller part is a speck
FITTING = 0.35  # of the best part's mean contrast: a part below it is something else
HOT = 0.7  # of the hottest part's mean attention: a part below it is not what the word names


def labelled(mask: Bool[np.ndarray, "h w"]) -> Int[np.ndarray, "h w"]:
    """A number for each part of pixels that touch by their sides; 0 outside the mask."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        joined = _largest_of_runs(_largest_of_runs(labels).T).T
        if np.array_equal(joined, labels):
            return labels
        labels = joined


def _largest_of_runs(labels: Int[np.ndarray, "h w"]) -> Int[np.ndarray, "h w"]:
    """Each label replaced by the largest in its run of a row; a 0 ends a run."""
    # Whole runs at once: a label crosses a part in as many passes as the part has turns.
    flat = np.pad(labels, ((0, 0), (0, 1))).ravel()  # a 0 between two rows
    begins = np.flatnonzero(np.diff(flat > 0, prepend=flat[0] == 0))
    lengths = np.diff(begins, append=flat.size)
    largest = np.maximum.reduceat(flat, begins)
    return np.repeat(largest, lengths).reshape(len(labels), -1)[:, :-1]


def fitting(
    mask: Bool[np.ndarray, "h w"],
    contrast: Float[np.ndarray, "h w"],
    heat: Float[np.ndarray, "h w"],
) -> Bool[np.ndarray, "h w"]:
    """The parts where the word fits: those whose mean contrast is near that of the best part.

    The best part is that with the highest mean times the root of its area. The contrast of a small
    part is little more than noise, so only parts that the word's attention, `heat`, marks about as
    strongly as the strongest part count.
    """
    parts = hot(parts_of(mask), heat)
    if len(parts) < 2:
        return parts[0] if parts else mask
    means = [float(contrast[part].mean()) for part in parts]
    ranks = [mean * np.sqrt(part.sum()) for mean, part in zip(means, parts, strict=True)]
    best = int(np.argmax(ranks))
    kept = [
        part
        for number, (mean, part) in enumerate(zip(means, parts, strict=True))
        if number == best or mean >= FITTING * means[best] > 0
    ]
    return np.logical_or.reduce(kept)


def hot(
    parts: Sequence[Bool[np.ndarray, "h w"]], heat: Float[np.ndarray, "h w"]
) -> list[Bool[np.ndarray, "h w"]]:
    """The parts whose mean heat is at least the share HOT of the hottest part's."""
    means = [float(heat[part].mean()) for part in parts]
    return [
        part for part, mean in zip(parts, means, strict=True) if mean >= HOT * max(means, default=0)
    ]


def touching(
    mask: Bool[np.ndarray, "h w"], part: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """The part, and what of the mask is connected with it."""
    labels = labelled(mask | part)
    return np.isin(labels, np.unique(labels[part]))


def clicked(
    mask: Bool[np.ndarray, "h w"], places: Sequence[tuple[int, int]]
) -> Bool[np.ndarray, "h w"]:
    """The parts that hold the places (row, column); for a place in none, the nearest part."""
    parts = parts_of(mask)
    if not parts:
        return mask
    kept: list[np.ndarray] = []
    for row, column in places:
        apart = [
            ((rows - row) ** 2 + (columns - column) ** 2).min()
            for rows, columns in map(np.nonzero, parts)
        ]
        kept.append(parts[int(np.argmin(apart))])
    return np.logical_or.reduce(kept)


def parts_of(mask: Bool[np.ndarray, "h w"]) -> list[Bool[np.ndarray, "h w"]]:
    """The parts of a mask, specks left out."""
    labels = labelled(mask)
    numbers, counts = np.unique(labels[mask], return_counts=True)
    least = SMALLEST * counts.sum()
    return [
        labels == number for number, count in zip(numbers, counts, strict=True) if count >= least
    ]
