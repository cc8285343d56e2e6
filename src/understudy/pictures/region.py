"""The part of a photo that a model edits, and how the result goes back into the photo.

Models draw pictures of one size. A region is a rectangle of the photo with the shape of that
size. It may reach beyond the photo, where the photo is mirrored. The region is scaled to the
model's size, edited, scaled back and laid over the photo where the edit changed something. Every
other pixel of the photo stays bit for bit. Boxes are in pixels of the upright photo. Knows nothing
of models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from understudy.errors import InputError
from understudy.pictures.photo import Pixels
from understudy.pictures.planes import widened

MARGIN = 0.35  # of the subject's longer side, on each side of it
SMALLEST = 16  # pixels: a region must be at least so large
NEAR = 1.5  # of the model's aspect ratio: a photo that is no further from it is seen whole
STRIDE = 0.6  # of a region: how far the next one is along a wide or tall photo
RAMP, LEAST_RAMP = 2, 2  # half the width of the fading edge: pixels of the edit, of the photo
RIM = 0.05  # of the region: over so much of its border the edit fades out, inside the photo


@dataclass(frozen=True)
class Region:
    """The rectangle from (x, y), `width` and `height` in pixels; x and y may be negative."""

    x: int
    y: int
    width: int
    height: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    def within(self, photo: tuple[int, int]) -> tuple[int, int, int, int]:
        """Rows from, to, columns from, to of the part inside a photo of (height, width)."""
        return (
            max(0, self.y),
            min(photo[0], self.y + self.height),
            max(0, self.x),
            min(photo[1], self.x + self.width),
        )


def parse(text: str) -> tuple[int, int, int, int] | None:
    """ "X,Y,W,H" as a box x, y, width, height; None for "auto" and "full".

    Raises InputError for anything else.
    """
    if text in ("auto", "full"):
        return None
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"--region must be auto, full or X,Y,W,H in pixels, like 120,40,300,300. Got {text!r}."
        ) from None
    return x, y, width, height


def checked(box: tuple[int, int, int, int], photo: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box. Raises InputError unless it is large enough and inside a photo (height, width)."""
    x, y, width, height = box
    inside = 0 <= x and 0 <= y and x + width <= photo[1] and y + height <= photo[0]
    if not inside or min(width, height) < SMALLEST:
        raise InputError(
            f"--region must lie within the {photo[1]} x {photo[0]} photo and have at least "
            f"{SMALLEST} pixels a side. Got {x},{y},{width},{height}."
        )
    return box


def covering(box: tuple[int, int, int, int], shape: tuple[int, int]) -> Region:
    """The smallest region with the shape of `shape` (height, width) that covers a whole box.

    It has the box's centre and may reach beyond the photo.
    """
    x, y, width, height = box
    scale = max(width / shape[1], height / shape[0])
    wide, tall = math.ceil(shape[1] * scale - 1e-9), math.ceil(shape[0] * scale - 1e-9)
    return Region(x - (wide - width) // 2, y - (tall - height) // 2, wide, tall)


def whole(photo: tuple[int, int], shape: tuple[int, int]) -> Region:
    """The region that covers all of a photo of (height, width)."""
    return covering((0, 0, photo[1], photo[0]), shape)


def tiles(photo: tuple[int, int], shape: tuple[int, int]) -> list[Region]:
    """Regions that cover a photo of (height, width) and hold none of its mirrored border.

    One for a photo of nearly the shape `shape`; for a wider or taller one several along its longer
    side, the next one at most the share STRIDE of a region further.
    """
    scale = min(photo[0] / shape[0], photo[1] / shape[1])
    high, wide = round(shape[0] * scale), round(shape[1] * scale)
    if max(photo[0] / high, photo[1] / wide) <= NEAR:
        return [whole(photo, shape)]
    down, across = photo[0] - high, photo[1] - wide
    count = 1 + math.ceil(max(down / high, across / wide) / STRIDE)
    shares = [n / (count - 1) for n in range(count)]
    return [Region(round(share * across), round(share * down), wide, high) for share in shares]


def around(
    box: tuple[float, float, float, float], photo: tuple[int, int], shape: tuple[int, int]
) -> Region:
    """A region around a subject's box x, y, width, height with a margin, moved into the photo.

    It is never larger than `whole`, and reaches beyond the photo only where it is larger than it.
    """
    x, y, width, height = box
    edge = MARGIN * max(width, height)
    wanted = covering(
        (
            math.floor(x - edge),
            math.floor(y - edge),
            math.ceil(width + 2 * edge),
            math.ceil(height + 2 * edge),
        ),
        shape,
    )
    largest = whole(photo, shape)
    if wanted.width >= largest.width:
        return largest
    return Region(
        _moved(wanted.x, wanted.width, photo[1]),
        _moved(wanted.y, wanted.height, photo[0]),
        wanted.width,
        wanted.height,
    )


def mask_box(mask: Float[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    """The box x, y, width, height of where a mask in [0, 1] is 0.5 or more (or its maximum)."""
    rows, columns = np.nonzero(mask >= min(0.5, float(mask.max())))
    x, y = int(columns.min()), int(rows.min())
    return x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y


def cut(
    pixels: UInt8[np.ndarray, "h w c"], region: Region, size: tuple[int, int]
) -> UInt8[np.ndarray, "h2 w2 c"]:
    """The region at `size` (height, width), Lanczos; mirrored beyond the photo's border."""
    height, width = pixels.shape[:2]
    top, bottom, left, right = region.within((height, width))
    part = pixels[top:bottom, left:right]
    beyond = (
        (top - region.y, region.y + region.height - bottom),
        (left - region.x, region.x + region.width - right),
        (0, 0),
    )
    if any(n for pair in beyond for n in pair):
        part = np.pad(part, beyond, mode="symmetric")
    if part.shape[:2] == size:
        return part
    image = Image.fromarray(part[..., 0] if part.shape[2] == 1 else part)
    scaled = np.asarray(image.resize((size[1], size[0]), Image.Resampling.LANCZOS))
    return scaled.reshape(*size, part.shape[2])


def put_back(
    photo: Pixels,
    region: Region,
    edited: Float[np.ndarray, "h2 w2 3"] | UInt8[np.ndarray, "h2 w2 3"],
    share: Float[np.ndarray, "h2 w2"],
    limit: Float[np.ndarray, "h w"] | None = None,
    unedited: Float[np.ndarray, "h2 w2 3"] | UInt8[np.ndarray, "h2 w2 3"] | None = None,
) -> Pixels:
    """The photo with the edited region in it.

    edited: the region at the model's size, 0 to 255. share: 1 where the edit is taken, 0 where the
    photo stays, at the same size. limit: a second share, of the photo's size; None is 1. Where a
    share is 0, and outside the region, the photo's pixels are returned bit for bit.

    unedited: the region at the model's size without the edit. With it, the edit also reaches a few
    pixels beyond the share, where only its difference from this is added to the photo: the photo's
    detail stays, and a difference that ends at 0 has no seam. Where it is 0 the photo's pixels are
    returned bit for bit.
    """
    top, bottom, left, right = region.within((photo.shape[0], photo.shape[1]))
    box = (left - region.x, top - region.y, right - region.x, bottom - region.y)

    def back(plane: np.ndarray, how: Image.Resampling = Image.Resampling.BICUBIC) -> np.ndarray:
        if plane.ndim == 3:
            return np.stack([back(plane[..., n], how) for n in range(plane.shape[2])], axis=-1)
        image = Image.fromarray(plane.astype(np.float32))
        scaled = image.resize((region.width, region.height), how).crop(box)
        return np.asarray(scaled, dtype=np.float32)

    taken = back(share, Image.Resampling.BILINEAR).clip(0, 1)
    part = photo[top:bottom, left:right]
    if unedited is None:
        soft, change = taken, back(edited).clip(0, 255) - part
    else:
        soft = widened(taken, max(LEAST_RAMP, round(RAMP * region.width / share.shape[1])))
        change = back(np.subtract(edited, unedited, dtype=np.float32))
        change = change - taken[..., None] * (part - back(unedited))
    soft = soft * _rim(region, (photo.shape[0], photo.shape[1]))
    if limit is not None:
        soft = soft * limit[top:bottom, left:right].clip(0, 1)
    mixed = np.rint((part + soft[..., None] * change).clip(0, 255)).astype(np.uint8)
    made = photo.copy()
    made[top:bottom, left:right] = np.where(soft[..., None] > 0, mixed, part)
    return made


def _rim(region: Region, photo: tuple[int, int]) -> Float[np.ndarray, "h3 w3"]:
    """1 inside, falling to 0 at the borders of the region that lie inside the photo."""
    top, bottom, left, right = region.within(photo)

    def way(start: int, length: int, first: int, last: int, limit: int) -> np.ndarray:
        places = np.arange(first, last) + 0.5 - start
        ramp = max(1.0, RIM * length)
        low = np.ones_like(places) if start <= 0 else (places / ramp).clip(0, 1)
        high = (
            np.ones_like(places)
            if start + length >= limit
            else ((length - places) / ramp).clip(0, 1)
        )
        return np.minimum(low, high)

    rows = way(region.y, region.height, top, bottom, photo[0])
    columns = way(region.x, region.width, left, right, photo[1])
    return np.minimum(rows[:, None], columns[None])


def _moved(start: int, length: int, limit: int) -> int:
    """A start that keeps the interval inside 0 to limit; centred where it is the longer."""
    if length >= limit:
        return -((length - limit) // 2)
    return min(max(start, 0), limit - length)
