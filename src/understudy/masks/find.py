"""The mask of what is selected in a photo, at the photo's size.

A word is found by the model's attention (`attention.py`), a point by the self-attention of its
cell, a box by its colours; edges are found by `pictures.segment`. A small subject is looked at a
second time in a region around it. Knows models by their protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float

from understudy.errors import InputError
from understudy.masks import parts
from understudy.masks.attention import Map, Seen, Told, scaled
from understudy.masks.selection import Selection, around_box, centred, first_regions
from understudy.models.interface import DiffusionModel
from understudy.pictures import region as regions
from understudy.pictures.photo import Pixels
from understudy.pictures.region import Region
from understudy.pictures.segment import scaled as plane_at
from understudy.pictures.segment import segmented
from understudy.pictures.tensors import grown, to_mask

Plane = Float[np.ndarray, "_ _"]

STEEPNESS, MIDDLE = 8.0, 0.45  # log-odds of a cell: STEEPNESS * (heat - MIDDLE)
WARM = 0.35  # heat of cells that are looked at again together with a hot part that they touch
CLOSER = 0.7  # a region of less than this share of the last one's side is looked at again
CLOSER_LOOKS = 2  # at most, one after the other
THINGS = 3  # looked at more closely, at most, in one look
LIKE = 0.5  # of the best score: a thing that fits the word no less is meant, too
DOT = 0.02  # radius of what a point says for certain, of the longer side
CELLS = 128  # side at which parts of a mask are told apart
EDGE = 3  # of these cells: how far the soft edge of a part reaches


def find_mask(
    model: DiffusionModel, pixels: Pixels, prompt: str, selection: Selection
) -> Float[np.ndarray, "h w"]:
    """1 where what is selected is, 0 elsewhere, between them at soft edges.

    prompt: describes the photo and has the selected words. Raises PromptError for a word that it
    lacks, InputError for a point or box outside the photo, and where nothing is found.
    """
    size = (pixels.shape[0], pixels.shape[1])
    selection.check(size)
    if selection == Selection():
        raise InputError("--select must name a word, a point or a box. Got nothing.")
    masks = [_one(model, pixels, prompt, word, selection) for word in selection.words or ("",)]
    found = np.maximum.reduce(masks)
    if float(found.max()) < 0.5:
        raise InputError(
            "nothing was found at this selection. Give a point on the subject with --select X,Y "
            "as well, or draw a mask and use --mask."
        )
    return found


def _one(
    model: DiffusionModel, pixels: Pixels, prompt: str, word: str, selection: Selection
) -> Plane:
    """The mask of one word, or of points or a box without a word."""
    size, shape = (pixels.shape[0], pixels.shape[1]), model.picture_size
    if not word and not selection.points and selection.box is not None:
        return _Look(pixels, around_box(selection, size, shape), selection, None).mask()
    begins = first_regions(selection, size, shape)
    told = Told.of(model, prompt, word)

    def look(at: Region) -> _Look:
        return _Look(pixels, at, selection, told.seen(model, pixels, at))

    if len(begins) > 1 and not selection.points:
        firsts = [(one.region, one.middle) for one in _meant(map(look, begins)) if one.score > 0]
        begins = centred(firsts, size) or begins
    leaves = [leaf for one in begins for leaf in _explored(look, one, shape, CLOSER_LOOKS)]
    return np.maximum.reduce([leaf.mask() for leaf in _meant(leaves)])


def _meant(looks: Iterable[_Look]) -> list[_Look]:
    """The looks at what fits the word about as well as what fits it best."""
    each = list(looks)
    best = max(one.score for one in each)
    return [one for one in each if one.score == best or one.score >= LIKE * best > 0]


def _explored(
    look: Callable[[Region], _Look], region: Region, shape: tuple[int, int], depth: int
) -> list[_Look]:
    """The last look at each thing that may be meant: closer where it is small in its region."""
    here = look(region)
    things = here.closer(shape) if depth else []
    near = [one for one in things if one.width < CLOSER * region.width]
    leaves = [leaf for one in near for leaf in _explored(look, one, shape, depth - 1)]
    return leaves if near and len(near) == len(things) else [here, *leaves]


@dataclass(frozen=True)
class _Look:
    """One look at a region of a photo. seen: what the model sees there; None for colours alone."""

    pixels: Pixels
    region: Region
    selection: Selection
    seen: Seen | None

    @property
    def part(self) -> tuple[int, int, int, int]:
        """Rows from, to, columns from, to of the region inside the photo."""
        return self.region.within((self.pixels.shape[0], self.pixels.shape[1]))

    def mask(self) -> Plane:
        """The mask of the whole photo; 0 outside the region."""
        top, bottom, left, right = self.part
        inside = segmented(self.pixels[top:bottom, left:right], self._odds(), self._fixed())
        chosen = self._chosen(inside)
        mask = np.zeros(self.pixels.shape[:2], np.float32)
        mask[top:bottom, left:right] = np.where(chosen, inside, 0)
        return mask

    @property
    def score(self) -> float:
        """How well the word fits what is seen: the mean gain of the fitting parts, times the root
        of their area in the photo."""
        assert self.seen is not None
        if self.selection.points or not self.seen.worded or not self._fits.any():
            return 0.0
        side = self.region.width * float(np.sqrt(self._fits.mean()))
        return side * float(self.seen.gain.numpy()[self._fits].mean())

    @property
    def middle(self) -> tuple[float, float]:
        """The centroid of the fitting parts, x and y in the photo."""
        rows, columns = np.nonzero(self._fits)
        height, width = self._fits.shape
        across, down = self.region.width / width, self.region.height / height
        x, y = (float(one.mean()) + 0.5 for one in (columns, rows))
        return self.region.x + x * across, self.region.y + y * down

    @cached_property
    def _fits(self) -> Bool[np.ndarray, "_ _"]:
        """The cells of the parts that the word fits; none where nothing is hot."""
        assert self.seen is not None
        heat = self._heat().numpy()
        cells = heat > MIDDLE
        return parts.fitting(cells, self.seen.gain.numpy(), heat) if cells.any() else cells

    def closer(self, shape: tuple[int, int]) -> list[Region]:
        """A region around each thing that may be meant, the hottest first; one for points."""
        assert self.seen is not None
        heat = self._heat().numpy()
        cells = heat > MIDDLE
        if self.selection.points:
            things = [parts.clicked(cells, [self._cell(x, y) for x, y in self.selection.points])]
        else:
            # The legs of a rabbit may be cooler than its ears, and are looked at with them.
            things = [
                parts.touching(heat > WARM, thing)
                for thing in parts.hot(parts.parts_of(cells), heat)
            ]
            things = sorted(things, key=lambda one: -heat[one].sum())[:THINGS]
        found = [self._around(thing, shape) for thing in things if thing.any()]
        return [one for one in found if one is not None and self._large(one)]

    def _large(self, region: Region) -> bool:
        """Whether the region shows enough of the photo to find edges in."""
        top, bottom, left, right = region.within((self.pixels.shape[0], self.pixels.shape[1]))
        return min(bottom - top, right - left) >= regions.SMALLEST

    def _around(self, cells: Bool[np.ndarray, "_ _"], shape: tuple[int, int]) -> Region | None:
        """A region around some cells; None where they are beyond the photo."""
        size = (self.pixels.shape[0], self.pixels.shape[1])
        x, y, width, height = regions.mask_box(cells.astype(np.float32))
        across, down = self.region.width / cells.shape[1], self.region.height / cells.shape[0]
        left, top = max(0.0, self.region.x + x * across), max(0.0, self.region.y + y * down)
        right = min(float(size[1]), self.region.x + (x + width) * across)
        bottom = min(float(size[0]), self.region.y + (y + height) * down)
        if right <= left or bottom <= top:
            return None
        return regions.around((left, top, right - left, bottom - top), size, shape)

    def _odds(self) -> Plane:
        """The log-odds of the subject over the part, by the model or by the box alone."""
        if self.seen is None:
            return self._bump()
        return STEEPNESS * (self._plane(self._heat().numpy()) - MIDDLE)

    def _heat(self) -> Map:
        """How much each cell belongs to the word, to the points, or to both on the average."""
        assert self.seen is not None
        if not self.selection.points:
            return self.seen.passed
        near = torch.stack([self._of_point(x, y) for x, y in self.selection.points]).amax(0)
        return (near + self.seen.passed) / 2 if self.seen.worded else near

    def _cell(self, x: int, y: int) -> tuple[int, int]:
        """Row and column of the cell at a point of the photo."""
        assert self.seen is not None
        height, width = self.seen.passed.shape
        row = int((y - self.region.y) * height / self.region.height)
        column = int((x - self.region.x) * width / self.region.width)
        return min(max(row, 0), height - 1), min(max(column, 0), width - 1)

    def _of_point(self, x: int, y: int) -> Map:
        """How much the cell at a point of the photo attends to each cell, passed on once."""
        assert self.seen is not None
        height, width = self.seen.passed.shape
        row, column = self._cell(x, y)
        near = self.seen.affinity[row * width + column]
        passed = self.seen.affinity @ scaled(near.view(height, width)).flatten()
        return scaled(passed.view(height, width))

    def _bump(self) -> Plane:
        """1.5 in the middle of the box, falling to -0.5 at its corners."""
        top, bottom, left, right = self.part
        x, y, width, height = self.selection.box or (left, top, right - left, bottom - top)
        rows = (np.linspace(top, bottom, CELLS) - y - height / 2) / (height / 2)
        columns = (np.linspace(left, right, CELLS) - x - width / 2) / (width / 2)
        apart = rows[:, None] ** 2 + columns[None] ** 2
        return np.maximum(1.5 - apart, -3.0).astype(np.float32)

    def _fixed(self) -> Plane | None:
        """1 at points, -1 outside the box, 0 elsewhere; None where nothing is certain."""
        if not self.selection.points and self.selection.box is None:
            return None
        top, bottom, left, right = self.part
        ys, xs = np.linspace(top, bottom, 2 * CELLS), np.linspace(left, right, 2 * CELLS)
        fixed = np.zeros((len(ys), len(xs)), np.float32)
        if self.selection.box is not None:
            x, y, width, height = self.selection.box
            within_rows, within = (ys >= y) & (ys <= y + height), (xs >= x) & (xs <= x + width)
            fixed[~(within_rows[:, None] & within[None])] = -1
        near = max(1.0, DOT * max(bottom - top, right - left))
        for x, y in self.selection.points:
            fixed[(ys[:, None] - y) ** 2 + (xs[None] - x) ** 2 <= near**2] = 1
        return fixed

    def _chosen(self, inside: Plane) -> np.ndarray:
        """Which pixels of the part belong to the parts that are meant."""
        height, width = inside.shape
        small = plane_at(inside, (CELLS, CELLS)) > 0.5
        top, bottom, left, right = self.part
        places = [
            (int((y - top) * CELLS / (bottom - top)), int((x - left) * CELLS / (right - left)))
            for x, y in self.selection.points
            if left <= x < right and top <= y < bottom
        ]
        if not small.any():
            return np.zeros(inside.shape, bool)
        if places:
            kept = parts.clicked(small, places)
        elif self.seen is not None and self.seen.worded:
            gain, heat = (
                plane_at(self._plane(one.numpy()), small.shape)
                for one in (self.seen.gain, self._heat())
            )
            kept = parts.fitting(small, gain, heat)
        else:
            kept = small
        # A soft edge is kept with its part; of parts that were dropped nothing is.
        near = grown(to_mask(kept.astype(np.float32)), EDGE)[0, 0].numpy()
        near *= 1 - plane_at((small & ~kept).astype(np.float32), small.shape)
        return plane_at(near, (height, width)) > 0.25

    def _plane(self, cells: Plane) -> Plane:
        """Values over the region's cells as a plane over its part inside the photo."""
        top, bottom, left, right = self.part
        across, down = cells.shape[1] / self.region.width, cells.shape[0] / self.region.height
        box = (
            (left - self.region.x) * across,
            (top - self.region.y) * down,
            (right - self.region.x) * across,
            (bottom - self.region.y) * down,
        )
        size = (max(2, round(CELLS * (bottom - top) / (right - left))), CELLS)
        return plane_at(cells, size, box)
