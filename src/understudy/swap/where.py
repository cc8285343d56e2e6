"""Where a swap may change a photo: around the old subject, and as far as the new one reaches.

The old subject is found by its words (`masks.find`), which gives its edges. What the new one needs
beside it, a hat or wider ears, is found by the difference of the prompts' noise estimates
(`difference.py`), near the old one only, so that a neighbour stays as it is. When the swap is
done, the new subject is found by its words, too, and the photo's own pixels are kept elsewhere.
A subject of the old one's class takes its outline, but for a narrow rim, so that whatever stands
beside or before it is kept. Knows models through their protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from understudy.errors import InputError
from understudy.masks.find import find_mask
from understudy.masks.parts import parts_of, touching
from understudy.masks.selection import Selection
from understudy.models.interface import DiffusionModel
from understudy.pictures.tensors import grown, to_mask, to_pixels
from understudy.pictures.tone import toned
from understudy.swap.limits import OTHER, Limits
from understudy.transfer.blend import latent_mask
from understudy.transfer.source_target import Replacement, Target

COVERED = 0.08  # share of a cell from which on it belongs to a subject
INSIDE = 0.5  # of a soft mask: above it a pixel is the subject's
SPECK = 0.1  # of the largest part's area: a smaller part of a mask is none of the subject's
NEAR = 0.06  # of the side: as near to the old subject the new one is
STRONG = 0.3  # of the range from -1 to 1: a change of colour that the masks cannot have missed
OLD_RIM, NEW_RIM = 0.03, 0.015  # of the side: beyond the rims the photo's background is known


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
    return to_mask(_without_specks(mask))


def _without_specks(mask: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """The mask without parts that are far smaller than its largest: bits of other things."""
    parts = parts_of(mask > INSIDE)
    largest = max((int(part.sum()) for part in parts), default=0)
    whole = [part for part in parts if part.sum() >= SPECK * largest]
    near = np.logical_or.reduce([mask <= INSIDE, *whole])
    return np.where(near, mask, 0).astype(np.float32)


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
    old: Float[Tensor, "1 1 h w"], difference: Float[Tensor, "k 1 lh lw"], limits: Limits = OTHER
) -> Float[Tensor, "k 1 lh lw"]:
    """Cells that may change: the old subject and a rim, and where the prompts differ nearby."""
    size = (int(difference.shape[-2]), int(difference.shape[-1]))
    cells = (latent_mask(old, size) > COVERED).to(difference)
    return grown(cells, limits.rim).maximum(difference * grown(cells, limits.reach))


@dataclass(frozen=True)
class BothSubjects:
    """The old subject "1 1 h w", and the new one of each swapped picture "k 1 h w": 1 where it is.

    Where no new subject is found its mask is 1 everywhere.
    """

    old: Float[Tensor, "1 1 h w"]
    new: Float[Tensor, "k 1 h w"]

    @classmethod
    def found(
        cls,
        model: DiffusionModel,
        old: Float[Tensor, "1 1 h w"],
        swapped: Float[Tensor, "k 3 h w"],
        targets: Sequence[Target],
    ) -> BothSubjects:
        """With the new subjects found by their words. old: as `old_subject` gives it."""
        masks: list[Tensor] = []
        for picture, target in zip(swapped.split(1), targets, strict=True):
            phrases = [one.phrase for one in target.words]
            new = found_by_words(model, picture, target.prompt, phrases)
            masks.append(torch.ones_like(old) if new is None else new)
        old, new = ((mask > INSIDE).to(swapped) for mask in (old, torch.cat(masks)))
        # A learned word may point at another thing, too: the new subject is where the old one was.
        here = grown(old, max(1, round(NEAR * max(old.shape[-2:]))))
        rows = [_reached(one * here, one) for one in new.split(1)]
        return cls(old, torch.cat(rows))

    def toned(
        self,
        photo: Float[Tensor, "1 3 h w"],
        swapped: Float[Tensor, "k 3 h w"],
        redrawn: Float[Tensor, "1 3 h w"],
    ) -> Float[Tensor, "k 3 h w"]:
        """The swapped pictures with the colours of their background fitted to the photo's."""
        old, new = self._grown(OLD_RIM, NEW_RIM)
        return toned(photo, swapped, redrawn, old, new)

    def reached(
        self,
        swapped: Float[Tensor, "k 3 h w"],
        redrawn: Float[Tensor, "1 3 h w"],
        limits: Limits = OTHER,
    ) -> Float[Tensor, "k 1 h w"]:
        """1 on both subjects and their edges.

        A mask may miss a tail. Strong changes of colour that touch the masks belong to them, too;
        those that stand alone or lead far away are of something else. redrawn: the photo as the
        autoencoder draws it.
        """
        old, new = self._grown(limits.old_edge, limits.new_edge)
        if limits.leaves is not None:
            new = new * grown(self.old, self._pixels(limits.leaves))
        bare = grown(self.old * (1 - new), self._pixels(limits.bare_edge))
        both = old.maximum(new).maximum(bare)
        if not limits.missed:
            return both
        strong = ((swapped - redrawn).abs().amax(1, keepdim=True) > STRONG).to(new)
        strong = strong * grown(both, self._pixels(limits.missed))
        rows = [_reached(*pair) for pair in zip(both.split(1), strong.split(1), strict=True)]
        return grown(torch.cat(rows), 1)

    def cells(self, mask: Float[Tensor, "m 1 lh lw"]) -> Float[Tensor, "k 1 lh lw"]:
        """What of a mask of the latents' size lies on both subjects and in one cell around them."""
        size = (int(mask.shape[-2]), int(mask.shape[-1]))
        covered = latent_mask(self.old.maximum(self.new), size) > COVERED
        return mask * grown(covered.to(mask), 1)

    def _grown(self, old: float, new: float) -> tuple[Tensor, Tensor]:
        """Both masks with rims, in shares of the longer side."""
        return grown(self.old, self._pixels(old)), grown(self.new, self._pixels(new))

    def _pixels(self, share: float) -> int:
        return max(1, round(share * max(self.old.shape[-2:])))


def _reached(
    mask: Float[Tensor, "1 1 h w"], strong: Float[Tensor, "1 1 h w"]
) -> Float[Tensor, "1 1 h w"]:
    """The mask, and what of `strong` is connected to it."""
    both = (one[0, 0].cpu().numpy() > INSIDE for one in (strong, mask))
    return to_mask(touching(*both).astype(np.float32)).to(mask)
