"""The part of a photo that is edited, and the result put back into the photo at its own size.

Only photos of another size than the model's have a frame; a photo of the model's size is edited as
it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.concept import Concept, applied
from understudy.errors import InputError
from understudy.jobs.photos import toys_only
from understudy.jobs.selecting import inside
from understudy.jobs.work import Work
from understudy.masks.find import find_mask
from understudy.masks.selection import Selection
from understudy.models.interface import DiffusionModel
from understudy.pictures import region as regions
from understudy.pictures.paste import changed
from understudy.pictures.photo import Photo, Pixels
from understudy.pictures.region import Region
from understudy.pictures.tensors import to_mask, to_tensor
from understudy.swap.difference import difference_mask, differences

LOOKS, SHRINKS = 4, 0.8  # at a named subject; what a look must take off the region's side
NEARLY_ALL = 0.8  # a region with this share of the whole one's side gains nothing


@dataclass(frozen=True)
class EditRegion:
    """A photo and the region of it that the model is given.

    limit: a mask of the photo's size; where it is 0 the photo stays, whatever the model drew.
    """

    photo: Pixels
    region: Region
    limit: Float[np.ndarray, "h w"] | None = None

    def picture(self, size: tuple[int, int]) -> Float[Tensor, "1 3 h w"]:
        """The region at the model's size (height, width)."""
        return to_tensor(regions.cut(self.photo, self.region, size))

    def mask(
        self, drawn: Float[Tensor, "1 1 h w"], size: tuple[int, int]
    ) -> Float[Tensor, "1 1 h2 w2"]:
        """A mask of the photo's size, cut like the photo."""
        grey = (255 * drawn[0, 0].numpy()).round().astype(np.uint8)[..., None]
        return to_mask(regions.cut(grey, self.region, size)[..., 0] / 255)

    def put_back(
        self,
        edited: Float[Tensor, "1 3 h2 w2"],
        unedited: Float[Tensor, "1 3 h2 w2"] | None,
    ) -> Pixels:
        """The photo with the edited region, where it differs from the unedited one.

        unedited: what the region looks like if nothing is edited; None takes all of the region.
        """
        if unedited is None:
            share, plain = torch.ones(1, 1, *edited.shape[-2:]), None
        else:
            share, plain = changed(edited, unedited), _levels(unedited)
        return regions.put_back(
            self.photo, self.region, _levels(edited), share[0, 0].numpy(), self.limit, plain
        )


def _levels(picture: Float[Tensor, "1 3 h w"]) -> Float[np.ndarray, "h w 3"]:
    """A picture from 0 to 255, not rounded: steps of one level would show once enlarged."""
    levels = (picture[0].detach().float().clamp(-1, 1) + 1) * 127.5
    return levels.permute(1, 2, 0).cpu().numpy()


@dataclass(frozen=True)
class Wanted:
    """What an edit says of the region: the option's text, and how the subject is found.

    targets: prompts of the result. concepts: what they speak of. words: of the prompt, that name
    the subject. A photo's subject is where the model's attention finds the words; without words, or
    where they are not found, where its predictions for `prompt` and the targets differ. Without
    targets nothing is looked for.
    exact: whether a masked photo of the model's size, too, is put back pixel by pixel.
    """

    text: str = "auto"
    prompt: str = ""
    targets: Sequence[str] = ()
    concepts: tuple[Concept, ...] = ()
    exact: bool = False
    words: Sequence[str] = ()


def frame_of(
    work: Work,
    model: DiffusionModel,
    photo: Photo,
    mask: Float[Tensor, "1 1 h w"] | None,
    wanted: Wanted,
) -> EditRegion | None:
    """The frame of a photo; None for one of the model's size, whole. mask: of the photo's size.

    "full" covers the whole photo, "auto" the mask, or the subject where it is small. Raises
    InputError for a text that is no region of the photo.
    """
    size, shape = photo.size, model.picture_size
    box, limit = regions.parse(wanted.text), inside(mask)
    if box is None and size == shape:
        whole = regions.whole(size, shape)
        return EditRegion(photo.pixels, whole, limit) if wanted.exact and mask is not None else None
    if box is not None:
        region = regions.covering(regions.checked(box, size), shape)
    elif wanted.text == "full":
        region = regions.whole(size, shape)
    elif limit is not None:
        region = regions.around(regions.mask_box(limit), size, shape)
    else:
        region = _around_subject(model, photo.pixels, wanted)
    top, bottom, left, right = region.within(size)
    work.note(
        *toys_only(model.name, shape, [size]),
        f"editing the region {left},{top},{right - left},{bottom - top} of the "
        f"{size[1]} x {size[0]} photo at {shape[1]} x {shape[0]}; the result has the photo's size",
    )
    return EditRegion(photo.pixels, region, limit)


@torch.no_grad()
def _around_subject(model: DiffusionModel, pixels: Pixels, wanted: Wanted) -> Region:
    """The region around the subject, or the whole photo where it is large or nothing is found."""
    size, shape = (pixels.shape[0], pixels.shape[1]), model.picture_size
    whole = regions.whole(size, shape)
    if not wanted.targets:
        return whole
    named = _around_words(model, pixels, wanted)
    if named is not None:
        return named if named.width < NEARLY_ALL * whole.width else whole
    view = EditRegion(pixels, whole)
    with applied(model, *wanted.concepts):
        latents = model.encode(view.picture(shape).to(model.device))
        found = differences(model, latents, wanted.prompt, wanted.targets).cpu()
    mask = difference_mask(found).amax(0)[None]
    core = 1 - F.max_pool2d(F.pad(1 - mask, (1, 1, 1, 1), value=0.0), 3, stride=1)
    mask = (core if bool(core.any()) else mask)[0, 0].numpy()  # without the rim of one cell
    x, y, width, height = regions.mask_box(mask)
    across, down = whole.width / mask.shape[1], whole.height / mask.shape[0]
    left, top = max(0.0, whole.x + x * across), max(0.0, whole.y + y * down)
    right = min(float(size[1]), whole.x + (x + width) * across)
    bottom = min(float(size[0]), whole.y + (y + height) * down)
    if right <= left or bottom <= top:
        return whole
    region = regions.around((left, top, right - left, bottom - top), size, shape)
    return region if region.width < NEARLY_ALL * whole.width else whole


def _around_words(model: DiffusionModel, pixels: Pixels, wanted: Wanted) -> Region | None:
    """The region around what the words name; None without words, or where they are not found.

    What is found is looked at again by itself, LOOKS times at most, as long as the region shrinks:
    a subject of a few cells is found too large at first.
    """
    if not wanted.words:
        return None
    size, shape = (pixels.shape[0], pixels.shape[1]), model.picture_size
    selection, found = Selection(words=tuple(wanted.words)), None
    top, bottom, left, right = 0, size[0], 0, size[1]
    for look in range(LOOKS):
        part = pixels[top:bottom, left:right]
        try:
            mask = find_mask(model, part, wanted.prompt, selection, search=look == 0)
        except InputError:
            break
        x, y, width, height = regions.mask_box(mask)
        region = regions.around((x + left, y + top, width, height), size, shape)
        if found is not None and region.width >= SHRINKS * found.width:
            break
        found = region
        top, bottom, left, right = region.within(size)
        if min(bottom - top, right - left) < min(shape) // 2:  # nothing more is to be seen
            break
    return found
