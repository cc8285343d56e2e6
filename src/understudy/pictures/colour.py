"""Decoded pixels of any kind -> 8-bit sRGB on white: profiles, deep greys, transparency.

Only `photo` calls it. Raises what Pillow raises, and ValueError for greys outside their range.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms, TiffImagePlugin

WHITE = (255, 255, 255)
STRAIGHT = {"RGBa": "RGBA", "La": "LA"}  # premultiplied alpha to straight alpha
PHOTOMETRIC, BITS = 262, 258  # TIFF tags
BAND = 64  # rows converted at once: the copies stay small

# Layouts that Pillow can unpack but does not list: (byte order, photometric, sample format,
# fill order, bits, extra samples). Photometric 0 is min-is-white; `_eight_bit` inverts it.
for _order, _wide in ((b"II", "I;16"), (b"MM", "I;16B")):
    for _photometric in (0, 1):
        _info = cast(dict[Any, Any], TiffImagePlugin.OPEN_INFO)
        _info.setdefault((_order, _photometric, (1,), 1, (12,), ()), ("I;16", "I;12"))
        _info.setdefault((_order, _photometric, (1,), 1, (16,), ()), (_wide, _wide))


@dataclass(frozen=True)
class Depth:
    """What a file says about its samples: the bits of a deep grey, and if 0 means white."""

    bits: int = 16
    inverted: bool = False


def depth_of(image: Image.Image) -> Depth:
    """The depth of an opened picture. Only TIFF has tags for it; the rest is 16 bit, 0 is black."""
    tags: Any = getattr(image, "tag_v2", None)
    if tags is None:
        return Depth()
    bits = tags.get(BITS, (16,))
    first = bits[0] if isinstance(bits, tuple) else bits
    return Depth(12 if first == 12 else 16, tags.get(PHOTOMETRIC) == 0)


def load(image: Image.Image) -> None:
    """Decode `image`; the transparent colour of a PNG (tRNS) becomes an alpha channel.

    Pillow compares 8-bit values with the key as the file has it, which is wrong at 1, 2, 4 and 16
    bits. 16-bit greys keep the key; `to_srgb` compares it before the depth is reduced.
    """
    key: Any = image.info.get("transparency")
    tiles: list[Any] = list(getattr(image, "tile", ()))
    layout = tiles[0][3] if image.format == "PNG" and tiles else None
    layout = layout[0] if isinstance(layout, tuple) else layout
    if layout == "RGB;16B" and isinstance(key, tuple):
        low = _low_bytes(image)
        image.load()
        pixels = np.asarray(image)
        wanted = np.array(key)
        match = ((pixels == wanted >> 8) & (low == (wanted & 255))).all(axis=-1)
    elif layout in ("1", "L;2", "L;4") and isinstance(key, int):
        image.load()
        most = {"1": 1, "L;2": 3, "L;4": 15}[layout]
        match = np.asarray(image.convert("L")) == key * 255 // most
    else:
        image.load()
        return
    image.info.pop("transparency", None)
    image.putalpha(Image.fromarray(np.where(match, 0, 255).astype(np.uint8)))


def to_srgb(
    image: Image.Image, profile: bytes | None, notes: list[str], depth: Depth | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Colours to sRGB, 12 and 16 bit and float to 8, transparency onto white."""
    key: Any = image.info.get("transparency")
    alpha = None
    if image.mode.startswith(("I", "F")):
        if isinstance(key, int):
            opaque = np.where(np.asarray(image) == key, 0, 255).astype(np.uint8)
            alpha = Image.fromarray(opaque)
        image = _eight_bit(image, depth or Depth())
    image = image.convert(STRAIGHT[image.mode]) if image.mode in STRAIGHT else image
    if alpha is None and image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
    if profile and image.mode in ("RGB", "RGBA", "L", "LA", "CMYK", "LAB", "P", "PA"):
        rgb = _from_profile(image, profile, notes)
    else:
        rgb = image.convert("RGB")
    if alpha is not None:
        ground = Image.new("RGB", rgb.size, WHITE)
        ground.paste(rgb, mask=alpha)
        rgb = ground
    return np.asarray(rgb)


def _low_bytes(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """The low bytes of a 16-bit RGB PNG: Pillow keeps the high ones only.

    "RGB;16L" takes the second byte of each sample, which is the low one in a PNG.
    """
    stream: Any = cast(Any, image).fp
    position = stream.tell()
    stream.seek(0)
    data = io.BytesIO(stream.read())
    stream.seek(position)
    with Image.open(data, formats=("PNG",)) as other:
        handle: Any = other
        handle.tile = [tile._replace(args="RGB;16L") for tile in handle.tile]
        return np.array(other)


def _eight_bit(image: Image.Image, depth: Depth) -> Image.Image:
    """Deep greys scaled by their full range (16 bit: 65535 is white) instead of clipped."""
    values: Any = np.asarray(image)
    if image.mode == "F" and not np.isfinite(values).all():
        raise ValueError("it holds numbers that are not finite")
    low, high = float(values.min()), float(values.max())
    white = float(2**depth.bits - 1)
    if image.mode == "F":
        white = 1.0 if high <= 1 else 255.0
    if low < 0 or high > white:
        raise ValueError(f"its greys go from {low:g} to {high:g}")
    small = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), BAND):
        band = np.rint(values[start : start + BAND].astype(np.float64) / white * 255)
        small[start : start + BAND] = 255 - band if depth.inverted else band
    return Image.fromarray(small)


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
