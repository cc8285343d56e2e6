"""What may change in a photo: a mask file, or what `--select` finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.errors import InputError
from understudy.jobs.work import Work
from understudy.masks.find import find_mask
from understudy.masks.selection import Selection
from understudy.models.interface import DiffusionModel
from understudy.pictures.photo import Photo
from understudy.pictures.region import mask_box
from understudy.pictures.tensors import to_mask
from understudy.settings.inputs import MOST_GROWTH, MaskInputs
from understudy.vision.sam import load_sam

WEIGHTS = "model.safetensors"
GROWTH = 0.06  # of the found subject's longer side: room for another shape


@dataclass(frozen=True)
class Selected:
    """The options that say where a photo may change.

    file: a drawn mask. texts: of `--select`. sam: a folder of SAM 2 that draws the mask. grow:
    pixels of the photo that the drawn mask is grown by; None where nothing is said.
    """

    file: Path | None = None
    texts: Sequence[str] = field(default_factory=tuple[str, ...])
    sam: Path | None = None
    grow: int | None = None

    @classmethod
    def of(cls, given: MaskInputs) -> Selected:
        """The options of a verb."""
        return cls(given.mask, given.select, given.sam, given.grow_mask)

    def checked(self, photo: Path | None) -> Selected:
        """The same, for a photo; None with a seed. Raises InputError for options that exclude each
        other."""
        if self.file is not None and self.texts:
            raise InputError("--mask and --select both set what may change. Give one of them.")
        if self.texts and photo is None:
            raise InputError("--select needs a photo. Leave out --select or --seed.")
        if self.sam is not None and not self.texts:
            raise InputError("--sam needs --select, which says what to mask.")
        if self.grow is not None and self.file is None:
            raise InputError(
                "--grow-mask needs --mask. The mask of --select is grown without it; to choose by "
                "how much, write it with understudy mask, and give it with --mask."
            )
        if not 0 <= (self.grow or 0) <= MOST_GROWTH:
            raise InputError(f"--grow-mask must be from 0 to {MOST_GROWTH}. Got {self.grow}.")
        Selection.of(self.texts)
        return self

    def __bool__(self) -> bool:
        return self.file is not None or bool(self.texts)

    def mask(
        self, work: Work, model: DiffusionModel, photo: Photo, prompt: str
    ) -> Float[Tensor, "1 1 h w"] | None:
        """The mask of the photo's size; None where nothing is said."""
        if self.file is not None:
            return work.mask(self.file, photo, photo.size, self.grow or 0)
        if not self.texts:
            return None
        return grown(to_mask(found(work, model, photo, prompt, self)))


def found(
    work: Work, model: DiffusionModel, photo: Photo, prompt: str, selected: Selected
) -> Float[np.ndarray, "h w"]:
    """The mask of a selection in [0, 1], by SAM 2 where its folder is given.

    SAM 2 is told the points and the box; for a word, the box of the mask found by attention.
    """
    selection = Selection.of(selected.texts)
    if selected.sam is None:
        return find_mask(model, photo.pixels, prompt, selection)
    box = selection.box
    selection.check(photo.size)
    if selection.words:
        rough = find_mask(model, photo.pixels, prompt, selection)
        box = mask_box(rough)
    sam = load_sam(selected.sam)
    work.used("sam", selected.sam / WEIGHTS)
    mask = sam.mask(photo.pixels, selection.points, box)
    if float(mask.max()) < 0.5:
        raise InputError("SAM 2 found nothing at this selection. Give another point or box.")
    return mask


def grown(mask: Float[Tensor, "1 1 h w"]) -> Float[Tensor, "1 1 h w"]:
    """The mask with a rim of GROWTH of its longer side, at its own size."""
    _, _, width, height = mask_box(mask[0, 0].numpy())
    rim = max(1, round(GROWTH * max(width, height)))
    for _ in range(rim // 8):
        mask = F.max_pool2d(mask, 17, stride=1, padding=8)
    rest = rim % 8
    return F.max_pool2d(mask, 2 * rest + 1, stride=1, padding=rest) if rest else mask


def as_pixels(mask: Float[np.ndarray, "h w"]) -> np.ndarray:
    """A mask as grey pixels (h, w, 3): white is the subject."""
    grey = np.rint(255 * mask.clip(0, 1)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def inside(mask: Tensor | None) -> Float[np.ndarray, "h w"] | None:
    """A mask as an array."""
    return None if mask is None else mask[0, 0].cpu().to(torch.float32).numpy()
