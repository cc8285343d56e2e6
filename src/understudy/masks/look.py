"""One look of a model at a region of a photo: where a word or a point is, and its mask."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float

from understudy.masks import parts
from understudy.masks.attention import Map, Seen, scaled
from understudy.masks.selection import Selection
from understudy.pictures import region as regions
from understudy.pictures.photo import Pixels
from understudy.pictures.region import Region
from understudy.pictures.segment import scaled as plane_at
from understudy.pictures.segment import segmented
from understudy.pictures.tensors import grown, to_mask

Plane = Float[np.ndarray, "_ _"]

STEEPNESS, MIDDLE = 8.0, 0.45  # log-odds of a cell: STEEPNESS * (heat - MIDDLE)
WARM = 0.35  # heat of cells that are looked at again together with a hot part that they touch
THINGS = 3  # looked at more closely, at most, in one look
DOT = 0.02  # radius of what a point says for certain, of the longer side
CELLS = 128  # side at which parts of a mask are told apart
EDGE = 3  # of these cells: how far the soft edge of a part reaches


@dataclass(frozen=True)
class Look:
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
    def fit(self) -> float:
        """How well the word fits what is seen: the mean gain of the fitting parts."""
        assert self.seen is not None
        if self.selection.points or not self.seen.worded or not self._fits.any():
            return 0.0
        return float(self.seen.gain.numpy()[self._fits].mean())

    @property
    def score(self) -> float:
        """`fit` times the root of the fitting parts' area in the photo."""
        return self.fit * self.region.width * float(np.sqrt(self._fits.mean())) if self.fit else 0.0

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
