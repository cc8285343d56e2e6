"""Maxima and averages of masks at a photo's size; the cost hardly grows with the reach."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def spread(pixels: np.ndarray, by: int) -> np.ndarray:
    """The largest value within `by` pixels (h, w, ...) to every side, corners included."""
    # Runs of twice the length from two runs: some ten passes, whatever `by` is.
    for axis in (0, 1) if by else ():
        wide = np.moveaxis(pixels, axis, 0)
        wide = np.pad(wide, [(by, by)] + [(0, 0)] * (wide.ndim - 1))
        length, whole = 1, 2 * by + 1
        while length < whole:
            step = min(length, whole - length)
            wide, length = np.maximum(wide[:-step], wide[step:]), length + step
        pixels = np.moveaxis(wide, 0, axis)
    return np.ascontiguousarray(pixels)


def widened(share: Float[np.ndarray, "h w"], by: int) -> Float[np.ndarray, "h w"]:
    """A share that fades to 0 over 2 `by` pixels outside, and is nowhere less than before.

    It starts and ends with slope 0: spread, then averaged over squares twice.
    """
    wide = spread(share, by)
    for near in (by // 2, by - by // 2):
        for axis in (0, 1):
            wide = _averaged(wide, near, axis)
    return np.maximum(wide, share).astype(np.float32)


def _averaged(values: Float[np.ndarray, "h w"], near: int, axis: int) -> Float[np.ndarray, "h w"]:
    """The mean over `near` pixels to both sides along an axis; the values at the edge repeat."""
    pad = [(0, 0), (0, 0)]
    pad[axis] = (near + 1, near)
    sums = np.moveaxis(np.pad(values.astype(np.float64), pad, mode="edge").cumsum(axis), axis, 0)
    length = 2 * near + 1
    return np.moveaxis(sums[length:] - sums[:-length], 0, axis) / length
