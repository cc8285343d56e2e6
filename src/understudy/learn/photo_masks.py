"""Masks of the subject in photos that come without one: found by attention to the class noun.

The loss then counts the subject more than its surroundings (see `latent_cache.encode_photos`), so
that few steps teach the subject and leave the backgrounds of the photos alone.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.errors import UnderstudyError
from understudy.masks.find import find_mask
from understudy.masks.selection import Selection
from understudy.models.interface import DiffusionModel
from understudy.pictures.tensors import grown, to_mask, to_pixels

RIM = 0.03  # of the picture's side: the subject's outline is learnt, too


def found_masks(
    model: DiffusionModel, photos: Float[Tensor, "n 3 h w"], prompt: str, noun: str
) -> Float[Tensor, "n 1 h w"]:
    """1 where the noun of the prompt is in each photo, with a rim; everywhere in a photo in which
    it is not found. Costs a few network evaluations per photo."""
    rim = max(1, round(RIM * max(photos.shape[-2:])))
    masks: list[Tensor] = []
    for photo in photos.split(1):
        try:
            found = to_mask(find_mask(model, to_pixels(photo), prompt, Selection((noun,))))
        except UnderstudyError:  # nothing there, or the prompt of the class lacks its noun
            found = torch.ones_like(photo[:, :1])
        masks.append(grown(found, rim))
    return torch.cat(masks)
