"""Pictures as tensors: files <-> RGB float32 (b, 3, h, w) in [-1, 1], masks and points.

The only converter. What a file may be and how it is made upright and sRGB is `photo`'s part;
here pixels become numbers a model takes, and back.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.errors import InputError, PictureError
from understudy.pictures import photo
from understudy.pictures.folders import Folder, list_folder
from understudy.pictures.photo import Pixels
from understudy.pictures.planes import spread


def read_picture(
    path: str | os.PathLike[str], size: tuple[int, int] | None = None
) -> Float[Tensor, "1 3 h w"]:
    """One file as a picture in [-1, 1], scaled and centre-cropped to `size` (height, width).

    Raises PictureError for whatever the door refuses; see `photo.read_photo`.
    """
    pixels = photo.read_photo(path).pixels
    return to_tensor(pixels if size is None else photo.fit(pixels, size))


def read_folder(
    path: str | os.PathLike[str], size: tuple[int, int]
) -> tuple[Float[Tensor, "n 3 h w"], Folder]:
    """All pictures of a folder in the order of their names, and the listing with its notes."""
    folder = list_folder(path)
    return torch.cat([read_picture(file, size) for file in folder.files]), folder


def to_tensor(pixels: Pixels) -> Float[Tensor, "1 3 h w"]:
    """uint8 (h, w, 3) -> float32 in [-1, 1]: 0 is -1, 255 is 1."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def to_pixels(picture: Float[Tensor, "1 3 h w"]) -> Pixels:
    """The reverse of `to_tensor`: clamped, rounded to the nearest of 256 levels, any device."""
    levels = (picture[0].detach().float().clamp(-1, 1) + 1) * 127.5
    return levels.round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def write_picture(
    path: str | os.PathLike[str],
    picture: Float[Tensor, "1 3 h w"],
    text: Mapping[str, str] | None = None,
) -> Path:
    """Write one picture as PNG, whole or not at all, with `text` in its metadata.

    Raises InputError unless the name ends in .png, OutputError if it cannot be written.
    """
    return photo.write_pixels(path, finite_pixels(picture, path), text)


def finite_pixels(
    picture: Float[Tensor, "1 3 h w"] | Pixels, path: str | os.PathLike[str]
) -> Pixels:
    """`to_pixels` for a result that will be written to `path`; pixels stay as they are.

    Raises InputError, naming `path`, for NaN and infinities.
    """
    if isinstance(picture, np.ndarray):
        return picture
    if not bool(torch.isfinite(picture).all()):
        raise InputError(f"{path} was not written: the picture has values that are not finite.")
    return to_pixels(picture)


def read_mask(
    path: str | os.PathLike[str],
    photo_size: tuple[int, int],
    size: tuple[int, int],
    grow: int = 0,
) -> Float[Tensor, "1 1 h w"]:
    """A mask file for a photo of `photo_size` (height, width), fitted as the photo is to `size`.

    White may change, black stays; greys are soft. grow: pixels of the photo that are added on
    every side of what may change. Raises PictureError, naming both sizes, if
    the mask was drawn for another picture, and if it is black all over.
    """
    opened = photo.read_photo(path)
    if opened.size != photo_size:
        (h, w), (height, width) = opened.size, photo_size
        raise PictureError(
            f"{path} has {w} x {h} pixels, but its photo has {width} x {height}. "
            "Give a mask of that size."
        )
    grey = photo.fit(spread(opened.pixels, grow), size).mean(axis=2, dtype=np.float32) / 255
    if grey.max() < 0.5 / 255:
        raise PictureError(
            f"{path} is black everywhere, so nothing may change. Paint some of it white."
        )
    return torch.from_numpy(grey)[None, None]


def mask_doubts(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """A note on a mask file that looks like a photo: colours, or grey in most of it."""
    pixels = photo.read_photo(path).pixels
    high, low = pixels.max(axis=2), pixels.min(axis=2)
    coloured = float((high - low > 24).mean()) > 0.05
    if not coloured and float(((low > 25) & (high < 230)).mean()) < 0.5:
        return ()
    seen = "has colours" if coloured else "is mostly grey"
    return (
        f"{Path(path).name} {seen} and may be a photo, not a mask: of a mask, white may change, "
        "black stays, greys change in part",
    )


def grown(mask: Float[Tensor, "k 1 h w"], by: int = 1) -> Float[Tensor, "k 1 h w"]:
    """The mask with a rim of `by` pixels or cells."""
    return F.max_pool2d(mask, 2 * by + 1, stride=1, padding=by)


def blurred(values: Float[Tensor, "k c h w"], deviation: float) -> Float[Tensor, "k c h w"]:
    """A Gaussian average over 3 deviations, in pixels or cells; the values at the edge repeat."""
    reach = max(1, round(3 * deviation))
    steps = torch.arange(-reach, reach + 1, device=values.device, dtype=values.dtype)
    kernel = (-steps.square() / (2 * deviation**2)).exp()
    kernel = (kernel / kernel.sum()).expand(values.shape[1], 1, -1)
    rows = F.pad(values, (reach, reach, 0, 0), mode="replicate")
    rows = F.conv2d(rows, kernel[:, :, None], groups=values.shape[1])
    both = F.pad(rows, (0, 0, reach, reach), mode="replicate")
    return F.conv2d(both, kernel[..., None], groups=values.shape[1])


def to_mask(array: Float[np.ndarray, "h w"]) -> Float[Tensor, "1 1 h w"]:
    """An array in [0, 1] (1 is the subject) as a mask."""
    return torch.from_numpy(array.astype(np.float32))[None, None]
