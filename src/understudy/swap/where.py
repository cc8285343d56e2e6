"""Where a swap may change a photo: around the old subject, and as far as the new one reaches.

The old subject is found by its words (`masks.find`), which gives its edges. What the new one needs
beside it, a hat or wider ears, is found by the difference of the prompts' noise estimates
(`difference.py`), near the old one only, so that a neighbour stays as it is. When the swap is
done, the new subject is found by its words, too, and the photo's own pixels are kept elsewhere.
Knows models through their protocol.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.errors import InputError
from understudy.masks.find import find_mask
from understudy.masks.selection import Selection
from understudy.models.interface import DiffusionModel
from understudy.pictures.tensors import to_mask, to_pixels
from understudy.transfer.blend import latent_mask
from understudy.transfer.source_target import Replacement, Target

COVERED = 0.08  # share of a cell from which on it belongs to a subject
RIM, REACH = 1, 3  # cells: around the old subject, and how far the new one may reach
OLD_EDGE, NEW_EDGE = 0.035, 0.015  # of the picture's side: around the old and the new subject
STRONG = 0.4  # of the range from -1 to 1: a change of colour that the masks cannot have missed


def found_by_words(
    model: DiffusionModel,
    picture: Float[Tensor, "1 3 h w"],
    prompt: str,
    words: Sequence[str],
) -> Float[Tensor, "1 1 h w"] | None:
    """The mask of what words of the prompt name in a picture of the model's size; None where
    nothing is found."""
    try:
        mask = find_mask(model, to_pixels(picture.clamp(-1, 1)), prompt, Selection(tuple(words)))
    except InputError:
        return None
    return to_mask(mask)


def old_subject(
    model: DiffusionModel,
    picture: Float[Tensor, "1 3 h w"],
    prompt: str,
    replacements: Sequence[Replacement],
) -> Float[Tensor, "1 1 h w"] | None:
    """The mask of the subjects that are replaced; None where it is not known: of one of several
    equal words, or where nothing is found."""
    if not replacements or any(one.occurrence is not None for one in replacements):
        return None
    return found_by_words(model, picture, prompt, [one.word for one in replacements])


def may_change(
    old: Float[Tensor, "1 1 h w"], difference: Float[Tensor, "k 1 lh lw"]
) -> Float[Tensor, "k 1 lh lw"]:
    """Cells that may change: the old subject and a rim, and where the prompts differ nearby."""
    size = (int(difference.shape[-2]), int(difference.shape[-1]))
    cells = (latent_mask(old, size) > COVERED).to(difference)
    return _grown(cells, RIM).maximum(difference * _grown(cells, REACH))


def around_both(
    model: DiffusionModel,
    old: Float[Tensor, "1 1 h w"],
    swapped: Float[Tensor, "k 3 h w"],
    redrawn: Float[Tensor, "1 3 h w"],
    targets: Sequence[Target],
) -> Float[Tensor, "k 1 h w"]:
    """1 on the old subject and on the new one of each swapped picture, and narrow edges; where no
    new subject is found, 1 everywhere.

    A mask may miss a tail. Strong changes of colour that touch the masks belong to them, too; those
    that stand alone are of something else. redrawn: the photo as the autoencoder draws it.
    targets: of the pictures.
    """
    side = max(swapped.shape[-2:])
    old = _grown((old > 0.5).float(), max(1, round(OLD_EDGE * side)))
    masks: list[Tensor] = []
    for picture, target in zip(swapped.split(1), targets, strict=True):
        phrases = [one.phrase for one in target.words]
        new = found_by_words(model, picture, target.prompt, phrases)
        if new is None:
            masks.append(torch.ones_like(old))
            continue
        both = old.maximum(_grown((new > 0.5).float(), max(1, round(NEW_EDGE * side))))
        strong = (picture - redrawn).abs().amax(1, keepdim=True) > STRONG
        masks.append(_grown(_reached(both, strong.to(both)), 1))
    return torch.cat(masks)


def _reached(
    mask: Float[Tensor, "1 1 h w"], strong: Float[Tensor, "1 1 h w"]
) -> Float[Tensor, "1 1 h w"]:
    """The mask, and what of `strong` is connected to it."""
    allowed = mask.maximum(strong)
    while True:
        grown = _grown(mask, 1).minimum(allowed)
        if torch.equal(grown, mask):
            return mask
        mask = grown


def _grown(mask: Float[Tensor, "k 1 h w"], by: int) -> Float[Tensor, "k 1 h w"]:
    return F.max_pool2d(mask, 2 * by + 1, stride=1, padding=by)
