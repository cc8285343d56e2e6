"""A note where a given mask ends at the old subject's outline, so that a rim of it would stay.

The paste fades inside the mask, and cells of latents that the mask covers in part change in part.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.jobs.selecting import GROWTH, Selected, inside
from understudy.jobs.source import InputPicture
from understudy.jobs.work import Work
from understudy.masks.parts import touching
from understudy.pictures.planes import spread
from understudy.pictures.region import mask_box
from understudy.settings.inputs import MOST_GROWTH

RING = 0.04  # of the found subject's longer side: width of the ring that is looked at
OUTSIDE = 1 / 3  # of the ring: from here on the mask ends at the outline
MEANT = 0.5  # of the found subject: a mask that covers less is of a part of it
CELL = 8  # pixels of the model's picture that a cell of latents covers


def note_outline(work: Work, selected: Selected, source: InputPicture) -> None:
    """Note that a rim of the old subject may stay, and what to do, where a mask file was given."""
    if selected.file is None or source.mask is None or source.subject is None:
        return
    room = lacking(source.mask, source.subject)
    if not room:
        return
    scale = 1.0 if source.frame is None else source.frame.region.width / source.mask.shape[-1]
    pixels = min(MOST_GROWTH, (selected.grow or 0) + ceil(room * scale))
    work.note(
        "the mask ends at the outline of the old subject, so that a rim of it may stay: "
        f"--grow-mask {pixels} adds {pixels} pixels on every side"
    )


def lacking(mask: Float[Tensor, "1 1 h w"], subject: Float[Tensor, "1 1 h w"]) -> int:
    """By how many pixels a mask should be grown so that nothing of the subject stays; 0 where it
    has room around the subject, or is not of it. subject: as it was found."""
    allowed, found = _white(mask), _white(subject)
    old = touching(found, found & allowed)  # another subject that the word names is not meant
    if not old.any() or (old & allowed).sum() < MEANT * old.sum():
        return 0
    _, _, width, height = mask_box(old.astype(np.float32))
    side = max(width, height)
    ring = spread(old, max(1, round(RING * side))) & ~old
    if (ring & ~allowed).sum() <= OUTSIDE * ring.sum():
        return 0
    return max(CELL, round(GROWTH * side))


def _white(mask: Float[Tensor, "1 1 h w"]) -> Bool[np.ndarray, "h w"]:
    values = inside(mask)
    assert values is not None
    return values > 0.5
