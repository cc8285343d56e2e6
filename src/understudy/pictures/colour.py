"""Whatever a file's pixels mean -> 8-bit sRGB on white: profiles, deep greys, transparency.

Only `photo`, the door, calls it. Raises what Pillow raises, and ValueError for greys that are none.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms

WHITE = (255, 255, 255)
STRAIGHT = {"RGBa": "RGBA", "La": "LA"}  # premultiplied alpha to straight alpha


def to_srgb(
    image: Image.Image, profile: bytes | None, notes: list[str]
) -> UInt8[np.ndarray, "h w 3"]:
    """Colours to sRGB, 16 bit and float to 8, transparency onto white."""
    image = _eight_bit(image)
    image = image.convert(STRAIGHT[image.mode]) if image.mode in STRAIGHT else image
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if profile and image.mode in ("RGB", "RGBA", "L", "LA", "CMYK", "LAB", "P", "PA"):
        rgb = _from_profile(image, profile, notes)
    else:
        rgb = image.convert("RGB")
    if alpha is not None:
        ground = Image.new("RGB", rgb.size, WHITE)
        ground.paste(rgb, mask=alpha)
        rgb = ground
    return np.asarray(rgb)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Deep greys scaled by their full range (16 bit: 65535 is white) instead of clipped."""
    if not image.mode.startswith(("I", "F")):
        return image
    values: Any = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it holds numbers that are not finite")
    deep = image.mode != "F"
    white = 65535.0 if deep else (1.0 if values.max() <= 1 else 255.0)
    if values.min() < 0 or values.max() > white:
        raise ValueError(f"its greys go from {values.min():g} to {values.max():g}")
    return Image.fromarray(np.rint(values / white * 255).astype(np.uint8))


def _from_profile(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    """Through the embedded ICC profile; a broken profile is ignored, with a note."""
    flat = {"RGBA": "RGB", "P": "RGB", "PA": "RGB", "LA": "L"}.get(image.mode)
    image = image.convert(flat) if flat else image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
        assert converted is not None
        return converted
    except (ImageCms.PyCMSError, OSError, ValueError):
        notes.append("its colour profile does not fit the picture and was left out.")
        return image.convert("RGB")
