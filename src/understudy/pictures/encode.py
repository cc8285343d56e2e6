"""Pixels to the bytes of a PNG, JPEG or WebP file with text and XMP; the same input, same bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from understudy.errors import InputError
from understudy.pictures.photo import Pixels

MIME = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}
QUALITY = 95
XMP_KEY = "XML:com.adobe.xmp"  # of the iTXt chunk
JPEG_XMP_LIMIT = 65_000  # bytes; a JPEG segment holds no more


def check_result_name(path: str | os.PathLike[str]) -> Path:
    """Raise InputError unless the name ends as a format we write: .png, .jpg, .jpeg or .webp."""
    file = Path(path)
    if file.suffix.lower() not in MIME:
        kinds = ", ".join(MIME)
        raise InputError(f"A result is written as one of {kinds}. Got {file.name!r}.")
    return file


def encoded(pixels: Pixels, suffix: str, text: Mapping[str, str], xmp: str) -> bytes:
    """A whole file. `text` goes into iTXt chunks of a PNG, and is left out of JPEG and WebP.

    PNG is exact; JPEG has quality 95 without colour subsampling, WebP quality 95.
    Raises InputError where the XMP packet does not fit a JPEG segment.
    """
    image, stream = Image.fromarray(pixels), io.BytesIO()
    packet = xmp.encode()
    if suffix == ".png":
        info = PngImagePlugin.PngInfo()
        for key, value in {**text, XMP_KEY: xmp}.items():
            info.add_itxt(key, value)
        image.save(stream, format="PNG", pnginfo=info)
    elif suffix == ".webp":
        image.save(stream, format="WEBP", quality=QUALITY, method=4, xmp=packet)
    else:
        if len(packet) > JPEG_XMP_LIMIT:
            raise InputError("The recipe is too long for a JPEG file. Write a .png or .webp.")
        image.save(stream, format="JPEG", quality=QUALITY, subsampling=0, xmp=packet)
    return stream.getvalue()


def frame_jpeg(pixels: Pixels, quality: int = 88) -> bytes:
    """A JPEG to look at, without metadata: a frame of a live view, not a result."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG", quality=quality, subsampling=0)
    return stream.getvalue()


def shrunk(pixels: Pixels, side: int) -> Pixels:
    """Scaled down (bicubic) so that the longer side has at most `side` pixels."""
    height, width = pixels.shape[:2]
    if max(height, width) <= side:
        return pixels
    share = side / max(height, width)
    size = (max(round(width * share), 1), max(round(height * share), 1))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
