"""The mask of what is selected in a photo, at the photo's size.

A word is found by the model's attention (`attention.py`), a point by the self-attention of its
cell, a box by its colours; edges are found by `pictures.segment`. A small subject is looked at a
second time in a region around it; one that a large photo hides is found by `scan.py`. Knows models
by their protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float

from understudy.errors import InputError
from understudy.masks.attention import Map, Told
from understudy.masks.look import Look, Plane
from understudy.masks.scan import Before, hottest, is_cut, is_large
from understudy.masks.selection import Selection, around_box, centred, first_regions
from understudy.models.interface import DiffusionModel
from understudy.pictures import region as regions
from understudy.pictures.photo import Pixels
from understudy.pictures.region import Region

CLOSER = 0.7  # a region of less than this share of the last one's side is looked at again
CLOSER_LOOKS = 2  # at most, one after the other
WIDER_LOOKS = 3  # at most, at a thing that the border of its tile cuts
SAMPLES = 4  # noises at each level, where the gain decides between things far apart
LIKE = 0.5  # of the best score: a thing that fits the word no less is meant, too


def find_mask(
    model: DiffusionModel,
    pixels: Pixels,
    prompt: str,
    selection: Selection,
    *,
    search: bool = True,
) -> Float[np.ndarray, "h w"]:
    """1 where what is selected is, 0 elsewhere, between them at soft edges.

    prompt: describes the photo and has the selected words. search: whether a photo larger than the
    model's pictures is searched in tiles, too, for words without points or a box. Raises
    PromptError for a word that the prompt lacks, InputError for a point or box outside the photo,
    and where nothing is found.
    """
    size = (pixels.shape[0], pixels.shape[1])
    selection.check(size)
    if selection == Selection():
        raise InputError("--select must name a word, a point or a box. Got nothing.")
    words = selection.words or ("",)
    masks = [_one(model, pixels, prompt, word, selection, search) for word in words]
    found = np.maximum.reduce(masks)
    if float(found.max()) < 0.5:
        raise InputError(
            "nothing was found at this selection. Give a point on the subject with --select X,Y "
            "as well, or draw a mask and use --mask."
        )
    return found


def _one(
    model: DiffusionModel,
    pixels: Pixels,
    prompt: str,
    word: str,
    selection: Selection,
    search: bool,
) -> Plane:
    """The mask of one word, or of points or a box without a word."""
    size, shape = (pixels.shape[0], pixels.shape[1]), model.picture_size
    if not word and not selection.points and selection.box is not None:
        return Look(pixels, around_box(selection, size, shape), selection, None).mask()
    begins = first_regions(selection, size, shape)
    told = Told.of(model, prompt, word)

    def look(at: Region, samples: int = 1) -> Look:
        return Look(pixels, at, selection, told.seen(model, pixels, at, samples))

    def heat(at: Region) -> Map:
        return told.heat(model, pixels, at)

    if len(begins) > 1 and not selection.points:
        firsts = [(one.region, one.middle) for one in _meant(map(look, begins)) if one.score > 0]
        begins = centred(firsts, size) or begins
    leaves = [leaf for one in begins for leaf in _explored(look, one, shape, CLOSER_LOOKS)]
    found = _joined(leaves)
    plain = bool(word) and not selection.points and selection.box is None
    return _in_tiles(look, heat, found, shape) if search and plain else found


def _in_tiles(
    look: Callable[..., Look],
    heat: Callable[[Region], Map],
    found: Plane,
    shape: tuple[int, int],
) -> Plane:
    """A mask, or what the search in tiles finds instead of it."""
    size = (found.shape[0], found.shape[1])
    if not is_large(size, shape):
        return found
    before = Before.of(heat, found, shape)
    spots = hottest(heat, size, shape, before)
    if not spots or before.shows(spots[0]) or before.shows_another(spots[0]):
        return found
    # Attention goes to every subject, the gain to the one that the word names: it decides.
    leaves = [leaf for one in spots for leaf in _whole(look, one.tile, size, shape)]
    if len(leaves) > 1:
        leaves = _meant([look(one.region, SAMPLES) for one in leaves], sized=False)
    return np.maximum.reduce([one.mask() for one in leaves])


def _whole(
    look: Callable[[Region], Look], tile: Region, size: tuple[int, int], shape: tuple[int, int]
) -> list[Look]:
    """The last looks at what a tile shows, in a region that does not cut it."""
    leaves = _explored(look, tile, shape, CLOSER_LOOKS)
    for _ in range(WIDER_LOOKS):
        mask = _joined(leaves)
        if not is_cut(mask, tile):
            break
        tile = regions.around(regions.mask_box(mask), size, shape)
        leaves = _explored(look, tile, shape, CLOSER_LOOKS)
    return leaves


def _joined(looks: Iterable[Look]) -> Plane:
    """The masks of what is meant, as one."""
    return np.maximum.reduce([one.mask() for one in _meant(looks)])


def _meant(looks: Iterable[Look], *, sized: bool = True) -> list[Look]:
    """The looks at what fits the word about as well as what fits it best.

    sized: whether something larger fits better, where the gain is the same.
    """
    each = [(one, one.score if sized else one.fit) for one in looks]
    best = max(value for _, value in each)
    return [one for one, value in each if value == best or value >= LIKE * best > 0]


def _explored(
    look: Callable[[Region], Look], region: Region, shape: tuple[int, int], depth: int
) -> list[Look]:
    """The last look at each thing that may be meant: closer where it is small in its region."""
    here = look(region)
    things = here.closer(shape) if depth else []
    near = [one for one in things if one.width < CLOSER * region.width]
    leaves = [leaf for one in near for leaf in _explored(look, one, shape, depth - 1)]
    return leaves if near and len(near) == len(things) else [here, *leaves]
