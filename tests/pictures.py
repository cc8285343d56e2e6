"""Picture files of every awkward kind, written for the tests that read them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def gradient(height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth coloured picture without symmetry: uint8 (h, w, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * x / (width - 1), 255 * y / (height - 1)
    return np.stack([red, green, np.full_like(red, 90)], axis=2).round().astype(np.uint8)


def save(path: Path, pixels: np.ndarray | None = None, **options: object) -> Path:
    """Write pixels (the gradient) by Pillow; the suffix chooses the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(gradient() if pixels is None else pixels).save(path, **options)
    return path


def truncated(path: Path, share: float = 0.5, **options: object) -> Path:
    """A picture whose file ends after `share` of its bytes."""
    data = save(path, **options).read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def bomb(path: Path, side: int = 10_000) -> Path:
    """A PNG of a few hundred bytes whose header claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


def grey16(path: Path, level: int = 40_000) -> Path:
    """A 16-bit grey picture of one level."""
    Image.fromarray(np.full((32, 32), level, dtype=np.uint16)).save(path)
    return path


def rotated(path: Path, orientation: int, pixels: np.ndarray) -> Path:
    """A lossless picture whose EXIF says how a viewer has to turn it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, lossless=True)
    return path
