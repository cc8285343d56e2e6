"""Where in a large photo a word is looked for: in overlapping tiles of several sizes.

A subject of a few pixels leaves no trace in a photo that is shrunk to the model's size. In a tile
that shows it larger, its cells attend to the word more than those of any empty tile. So heat is
compared without scaling it to each tile. Tiles are halved where the heat of the larger ones was
highest. Knows no model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from understudy.masks import parts
from understudy.masks.attention import Map
from understudy.pictures.region import Region, around, cut, mask_box

HALVINGS = 2  # of the photo's shorter side, at most: a subject of 5 % of it fills 20 % of a tile
SHARP = 0.75  # of the model's size: tiles of fewer pixels show nothing more
BEST = 3  # spots that are looked at in smaller tiles
LARGE = 0.1  # of a tile's area: a subject that fills more of it is seen well enough in it
NEARLY = 0.8  # of the hottest spot's heat: less is the floor or the sky
ALL_OVER = 0.57  # of the hottest spot's heat: a subject's mask has no less on the average
AS_HOT = 0.65  # of the hottest spot's heat: no less is another subject, or another part
WIDE = 3.0  # of its tile's side: a region around a mask that is larger shows the floor or the sky
INSIDE = 0.3  # of a cell: one that a mask covers no less is the mask's
CELLS = 256  # of a mask's longer side, at least: its parts are told apart on every n-th pixel
BORDER = 0.02  # of a tile's side: what comes so near to its border goes on beyond it
FITS = 1.25  # times a tile's side: a part of a mask that is longer shows another thing
APART = 0.5  # of a tile's side: two spots that lie nearer to each other show the same


@dataclass(frozen=True)
class Spot:
    """The tile in which a word's attention is highest, and x and y in the photo where it is."""

    tile: Region
    x: float
    y: float
    heat: float

    def share(self, mask: Float[np.ndarray, "h w"]) -> float:
        """The share of the tile that the part of a mask at the spot fills.

        mask: of the photo's size. 0 where it misses the spot, or where the part is much longer than
        the tile: then the mask shows another thing, such as the floor. A tile may show the head of
        a large subject, so more than 1 is possible.
        """
        step = max(1, math.ceil(max(mask.shape) / CELLS))
        labels = parts.labelled(mask[::step, ::step] > 0.5)
        here = labels[int(self.y) // step, int(self.x) // step]
        if here == 0:
            return 0.0
        cells = labels == here
        _, _, width, height = mask_box(cells.astype(np.float32))
        if width * step > FITS * self.tile.width or height * step > FITS * self.tile.height:
            return 0.0
        return float(cells.sum()) * step**2 / (self.tile.width * self.tile.height)


@dataclass(frozen=True)
class Before:
    """A mask of the photo's size in which a word was found before, and its heat.

    mean, most: of the cells that the mask covers, in the region around it. width: of this region.
    """

    mask: Float[np.ndarray, "h w"]
    mean: float
    most: float
    width: int

    @classmethod
    def of(
        cls,
        heat_in: Callable[[Region], Map],
        mask: Float[np.ndarray, "h w"],
        shape: tuple[int, int],
    ) -> Before:
        """Looks at one region; at none for an empty mask, which has no heat."""
        if float(mask.max()) < 0.5:
            return cls(mask, 0.0, 0.0, 0)
        region = around(mask_box(mask), (mask.shape[0], mask.shape[1]), shape)
        heat = heat_in(region).numpy()
        grey = np.rint(255 * mask.clip(0, 1)).astype(np.uint8)[..., None]
        inside = cut(grey, region, (heat.shape[0], heat.shape[1]))[..., 0] > 255 * INSIDE
        some = heat[inside] if inside.any() else np.zeros(1, np.float32)
        return cls(mask, float(some.mean()), float(some.max()), region.width)

    def shows(self, spot: Spot, least: float = 0.0) -> bool:
        """Whether the mask is of what is at a spot.

        Its part there is not much larger than the spot's tile, fills the share `least` of it, and
        is hot all over: one with much around the subject is not.
        """
        share = spot.share(self.mask)
        return share > 0 and share >= least and self.mean >= ALL_OVER * spot.heat

    def shows_another(self, spot: Spot) -> bool:
        """Whether the mask is of another subject of the word, or of another part of the same one:
        it is about as hot as the spot, and not far larger than its tile."""
        apart = bool(self.mask[int(spot.y), int(spot.x)] <= 0.5)
        return apart and self.width <= WIDE * spot.tile.width and self.most >= AS_HOT * spot.heat


def is_large(size: tuple[int, int], shape: tuple[int, int]) -> bool:
    """Whether a photo of `size` shows more in tiles than at the size of a model's pictures."""
    return bool(_tiles(size, shape, 2))


def hottest(
    heat_in: Callable[[Region], Map],
    size: tuple[int, int],
    shape: tuple[int, int],
    before: Before,
) -> list[Spot]:
    """Where a word's attention is highest, and other spots about as hot; the hottest first.

    None in a photo too small to be looked at in tiles, and where the word was found well before.
    heat_in: the word's attention over the cells of a tile, comparable between tiles. size, shape:
    height and width of the photo and of the model's pictures. before: where the word was found; the
    search ends where this shows the hottest spot, large in its tile. Costs 10 to some 60 tiles.
    """
    kept: list[Spot] = []
    halving = 0
    for halving in range(HALVINGS + 1):
        tiles = _tiles(size, shape, 2**halving)
        if halving > 1:
            tiles = [one for one in tiles if _within(one, kept)]
        if not tiles:
            break
        kept = _apart([_spot(one, heat_in(one)) for one in tiles] + kept)
        if halving and before.shows(kept[0], LARGE):
            break
    return [one for one in kept if one.heat >= NEARLY * kept[0].heat] if halving > 1 else []


def is_cut(mask: Float[np.ndarray, "h w"], tile: Region) -> bool:
    """Whether what a mask shows in a tile goes on beyond it, though not beyond the photo."""
    if float(mask.max()) < 0.5:
        return False
    top, bottom, left, right = tile.within((mask.shape[0], mask.shape[1]))
    x, y, width, height = mask_box(mask)
    near = BORDER * max(tile.size)
    return (
        (y - top < near and top > 0)
        or (x - left < near and left > 0)
        or (bottom - y - height < near and bottom < mask.shape[0])
        or (right - x - width < near and right < mask.shape[1])
    )


def _spot(tile: Region, heat: Map) -> Spot:
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    x = tile.x + (column + 0.5) * tile.width / heat.shape[1]
    y = tile.y + (row + 0.5) * tile.height / heat.shape[0]
    return Spot(tile, x, y, float(heat.max()))


def _tiles(size: tuple[int, int], shape: tuple[int, int], pieces: int) -> list[Region]:
    """Tiles with the shape `shape`, half overlapping, of a `pieces`th of the photo's size.

    None for tiles that would have too few pixels.
    """
    scale = min(size[0] / shape[0], size[1] / shape[1]) / pieces
    if scale < SHARP:
        return []
    high, wide = round(shape[0] * scale), round(shape[1] * scale)
    return [
        Region(x, y, wide, high)
        for y in _starts(size[0] - high, high / 2)
        for x in _starts(size[1] - wide, wide / 2)
    ]


def _starts(free: int, step: float) -> list[int]:
    """Equally spaced numbers from 0 to `free`, at most `step` apart."""
    count = math.ceil(free / step)
    return [round(n * free / count) for n in range(count + 1)] if count else [0]


def _within(tile: Region, larger: Sequence[Spot]) -> bool:
    """Whether the middle of a tile lies in one of the larger ones."""
    x, y = tile.x + tile.width / 2, tile.y + tile.height / 2
    return any(
        one.tile.x <= x <= one.tile.x + one.tile.width
        and one.tile.y <= y <= one.tile.y + one.tile.height
        for one in larger
    )


def _apart(spots: Sequence[Spot]) -> list[Spot]:
    """The hottest ones, of those that show the same the hottest."""
    found: list[Spot] = []
    for spot in sorted(spots, key=lambda one: -one.heat):
        if all(_is_apart(spot, one) for one in found):
            found.append(spot)
    return found[:BEST]


def _is_apart(one: Spot, other: Spot) -> bool:
    far = max(abs(one.x - other.x), abs(one.y - other.y))
    return far > APART * max(one.tile.width, other.tile.width)
