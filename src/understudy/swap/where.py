"""Where a swap may change a photo: around the old subject, and as far as the new one reaches.

The old subject is found by its words (`masks.find`), which gives its edges. What the new one needs
beside it, a hat or wider ears, is found by the difference of the prompts' noise estimates
(`difference.py`), near the old one only, so that a neighbour stays as it is. When the swap is
done, the new subject is found by its words, too, and the photo's own pixels are kept elsewhere.
A subject of the old one's class takes its outline, but for a narrow rim and for parts that stand
out above it, so that whatever stands beside or before it is kept. Knows models through their
protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
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
THICK = 0.015  # of the side: a part above the old outline has places over twice as wide
PART = 0.02  # of the old subject's area: a smaller part above it is noise of the masks
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
    largest = max((int(part.sum()) for part in parts_of(mask > INSIDE)), default=0)
    near = (mask <= INSIDE) | _large(mask, SPECK * largest)
    return np.where(near, mask, 0).astype(np.float32)


def _large(mask: Float[np.ndarray, "h w"], least: float) -> Bool[np.ndarray, "h w"]:
    """The connected parts of a mask of at least so many pixels."""
    found = mask > INSIDE
    return np.logical_or.reduce(
        [np.zeros_like(found), *(part for part in parts_of(found) if part.sum() >= least)]
    )


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
    cells = covered(old, difference)
    return grown(cells, limits.rim).maximum(difference * grown(cells, limits.reach))


def covered(
    mask: Float[Tensor, "k 1 h w"], like: Float[Tensor, "m c lh lw"]
) -> Float[Tensor, "k 1 lh lw"]:
    """1 in the cells of latents `like` these that belong to what the mask shows."""
    size = (int(like.shape[-2]), int(like.shape[-1]))
    return (latent_mask(mask, size) > COVERED).to(like)


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
            parts = self.beyond(swapped, redrawn, limits)
            new = new.maximum(grown(parts, self._pixels(limits.old_edge)))
        bare = grown(self.old * (1 - new), self._pixels(limits.bare_edge))
        both = old.maximum(new).maximum(bare)
        if not limits.missed:
            return both
        near = grown(both, self._pixels(limits.missed)).split(1)
        strong = [a * b for a, b in zip(self._strong(swapped, redrawn), near, strict=True)]
        rows = [_reached(*pair) for pair in zip(both.split(1), strong, strict=True)]
        return grown(torch.cat(rows), 1)

    def beyond(
        self,
        swapped: Float[Tensor, "k 3 h w"],
        redrawn: Float[Tensor, "1 3 h w"],
        limits: Limits,
    ) -> Float[Tensor, "k 1 h w"]:
        """Parts of the new subjects that stand out above the old outline: a crown, a hat.

        Such a part is large, thick in some place, and near the old subject. It is of the new
        subject's mask, or of a strong change of colour that touches it: masks of words may miss
        a hat. Beside the old outline nothing counts: there it is a change of pose. redrawn: the
        photo as the autoencoder draws it.
        """
        if limits.leaves is None or not limits.above:
            return torch.zeros_like(self.new)
        kept = grown(self.old, self._pixels(limits.leaves))
        above = (kept.cumsum(-2) == 0) * kept.amax(-2, keepdim=True)
        room = above * grown(self.old, self._pixels(limits.above))
        found: list[Tensor] = []
        for new, strong in zip(self.new.split(1), self._strong(swapped, redrawn), strict=True):
            # A mask of 1 everywhere says that the new subject was not found.
            outside = _reached(new, strong) * room * (1 - new.amin())
            thick = 1 - grown(1 - outside, self._pixels(THICK))
            parts = _reached(thick, outside)[0, 0].cpu().numpy()
            large = _large(parts, PART * float(self.old.sum()))
            found.append(to_mask(large.astype(np.float32)).to(new))
        return torch.cat(found)

    def cells(
        self,
        mask: Float[Tensor, "m 1 lh lw"],
        limits: Limits,
        beyond: Float[Tensor, "k 1 h w"],
    ) -> Float[Tensor, "k 1 lh lw"]:
        """What of a mask of the latents' size lies on both subjects and in one cell around them.

        Where the new one must not leave the old outline, of the new one `beyond` alone counts.
        """
        new = self.new if limits.leaves is None else beyond
        return mask * grown(covered(self.old.maximum(new), mask), 1)

    def _strong(
        self, swapped: Float[Tensor, "k 3 h w"], redrawn: Float[Tensor, "1 3 h w"]
    ) -> tuple[Float[Tensor, "1 1 h w"], ...]:
        """Of each picture: 1 where its colours are very different from the photo's."""
        return ((swapped - redrawn).abs().amax(1, keepdim=True) > STRONG).to(self.new).split(1)

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
