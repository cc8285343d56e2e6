"""Sixty odd pictures: each has the values computed here, or is refused in one line by name."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from understudy.errors import PictureError
from understudy.pictures import photo

SIDE = 32
RAMP = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 256
COLOURS = np.stack([RAMP, 255 - RAMP, RAMP // 2], -1).astype(np.uint8)
GREY = np.repeat(RAMP[..., None], 3, 2).astype(np.uint8)


def encoded(pixels: np.ndarray, format: str, mode: str | None = None, **how: Any) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(stream, format, **how)
    return stream.getvalue()


def chunk(name: bytes, body: bytes, crc: int | None = None) -> bytes:
    check = zlib.crc32(name + body) if crc is None else crc
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)


def png(
    rows: bytes, bits: int, colour: int, *before: bytes, side: tuple[int, int] = (SIDE, SIDE),
    interlace: int = 0, after: bytes = b"",
) -> bytes:  # fmt: skip
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *side, bits, colour, 0, 0, interlace))
    body = chunk(b"IDAT", zlib.compress(rows)) + after + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(before) + body


def lines(values: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in values)


def tiff(data: bytes, tags: dict[int, int | tuple[int, ...]], order: str = "<") -> bytes:
    """An uncompressed TIFF in one strip; a tag with several values is written behind it."""
    every = {256: SIDE, 257: SIDE, 259: 1, 273: 8, 278: SIDE, 279: len(data), **tags}
    behind, place = b"", 8 + len(data) + 2 + 12 * len(every) + 4
    entries = b""
    for tag in sorted(every):
        value = every[tag]
        if isinstance(value, tuple):
            entries += struct.pack(order + "HHII", tag, 3, len(value), place + len(behind))
            behind += struct.pack(order + f"{len(value)}H", *value)
        else:
            entries += struct.pack(order + "HHII", tag, 4, 1, value)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + len(data))
    return head + data + struct.pack(order + "H", len(every)) + entries + bytes(4) + behind


def bmp(bits: int, data: bytes, palette: bytes = b"", height: int = SIDE) -> bytes:
    start = 54 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, SIDE, height, 1, bits, 0, len(data), 0, 0, 0, 0)
    return struct.pack("<2sIHHI", b"BM", start + len(data), 0, 0, start) + info + palette + data


def turned(orientation: int, format: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(COLOURS, format, exif=exif)


def damaged(data: bytes, at: float, what: bytes) -> bytes:
    place = int(len(data) * at)
    return data[:place] + what + data[place + len(what) :]


def laid_on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return pixels * share + 255 * (1 - share)


ALPHA = np.dstack([COLOURS, (RAMP.T % 256).astype(np.uint8)])
DEEP = (RAMP * 257).astype(np.uint16)
Made = Callable[[], bytes]
# kind -> (file, wanted pixels or a word of the refusal, largest difference)
READ: dict[str, tuple[Made, np.ndarray, float]] = {
    "PNG grey 1 bit": (
        lambda: png(lines(np.packbits(RAMP > 127, axis=1)), 1, 0), GREY // 128 * 255, 0),
    "PNG grey 2 bits": (
        lambda: png(lines(np.packbits(np.stack([RAMP >> 7 & 1, RAMP >> 6 & 1], -1).reshape(SIDE, -1)
                                      .astype(np.uint8), axis=1)), 2, 0), GREY // 64 * 85, 0),
    "PNG grey 8 bits": (lambda: png(lines(RAMP.astype(np.uint8)), 8, 0), GREY, 0),
    "PNG grey 16 bits": (lambda: png(lines(DEEP.astype(">u2")), 16, 0), GREY, 0),
    "PNG grey and alpha 8 bits": (
        lambda: encoded(np.dstack([RAMP, RAMP.T]).astype(np.uint8), "PNG"),
        laid_on_white(GREY, RAMP.T), 1),
    "PNG colour 16 bits": (
        lambda: png(lines((COLOURS.astype(">u2") * 257).astype(">u2")), 16, 2), COLOURS, 0),
    "PNG colour and alpha 16 bits": (
        lambda: png(lines((ALPHA.astype(">u2") * 257).astype(">u2")), 16, 6),
        laid_on_white(COLOURS, RAMP.T), 1),
    "PNG colour and alpha 8 bits": (
        lambda: encoded(ALPHA, "PNG"), laid_on_white(COLOURS, RAMP.T), 1),
    "PNG interlaced": (lambda: encoded_interlaced(), GREY, 0),
    "PNG with text behind the pixels": (
        lambda: png(lines(COLOURS), 8, 2, after=chunk(b"tEXt", b"key\0value")), COLOURS, 0),
    "PNG with an unknown chunk": (
        lambda: png(lines(COLOURS), 8, 2, chunk(b"xxXx", b"\0" * 100)), COLOURS, 0),
    "PNG with bytes behind its end": (
        lambda: encoded(COLOURS, "PNG") + b"\0" * 1000, COLOURS, 0),
    "PNG with gamma": (lambda: png(lines(COLOURS), 8, 2, chunk(b"gAMA", b"\0\0\xb1\x8f")),
                       COLOURS, 0),
    "PNG with a pixel size of 0": (
        lambda: png(lines(COLOURS), 8, 2, chunk(b"pHYs", bytes(9))), COLOURS, 0),
    "PNG palette of 4 bits": (
        lambda: png(lines(np.packbits(np.unpackbits((RAMP % 16).astype(np.uint8)[..., None], axis=2)
                                      [..., 4:].reshape(SIDE, -1), axis=1)), 4, 3,
                    chunk(b"PLTE", bytes(range(48)))),
        np.stack([RAMP % 16 * 3, RAMP % 16 * 3 + 1, RAMP % 16 * 3 + 2], -1), 0),
    "PNG palette with alphas": (
        lambda: png(lines((RAMP % 2).astype(np.uint8)), 8, 3, chunk(b"PLTE", bytes([9] * 6)),
                    chunk(b"tRNS", b"\0\xff")), np.where(GREY % 2, 9, 255), 0),
    "animated PNG": (
        lambda: encoded(COLOURS, "PNG", save_all=True, append_images=[Image.new("RGB", (32, 32))]),
        COLOURS, 0),
    "PNG named .jpg": (lambda: encoded(COLOURS, "PNG"), COLOURS, 0),
    "TIFF grey big-endian": (
        lambda: tiff(RAMP.astype(np.uint8).tobytes(), {258: 8, 262: 1, 277: 1}, ">"), GREY, 0),
    "TIFF min-is-white": (
        lambda: tiff(RAMP.astype(np.uint8).tobytes(), {258: 8, 262: 0, 277: 1}), 255 - GREY, 0),
    "TIFF min-is-white 16 bits big-endian": (
        lambda: tiff(DEEP.astype(">u2").tobytes(), {258: 16, 262: 0, 277: 1}, ">"), 255 - GREY, 0),
    "TIFF 1 bit min-is-white": (
        lambda: tiff(np.packbits(RAMP > 127, axis=1).tobytes(), {258: 1, 262: 0, 277: 1}),
        255 - GREY // 128 * 255, 0),
    "TIFF colour": (
        lambda: tiff(COLOURS.tobytes(), {258: (8, 8, 8), 262: 2, 277: 3}), COLOURS, 0),
    "TIFF LZW": (lambda: encoded(COLOURS, "TIFF", compression="tiff_lzw"), COLOURS, 0),
    "TIFF deflate": (lambda: encoded(COLOURS, "TIFF", compression="tiff_adobe_deflate"),
                     COLOURS, 0),
    "TIFF packbits": (lambda: encoded(COLOURS, "TIFF", compression="packbits"), COLOURS, 0),
    "TIFF LZW 16 bits": (lambda: encoded(DEEP, "TIFF", compression="tiff_lzw"), GREY, 0),
    "TIFF float": (lambda: encoded((RAMP / 255).astype(np.float32), "TIFF"), GREY, 0),
    "TIFF of several pages": (
        lambda: encoded(COLOURS, "TIFF", save_all=True,
                        append_images=[Image.new("RGB", (32, 32))]), COLOURS, 0),
    "BMP 24 bits": (
        lambda: bmp(24, COLOURS[::-1, :, ::-1].tobytes()), COLOURS, 0),
    "BMP top down": (
        lambda: bmp(24, COLOURS[:, :, ::-1].tobytes(), height=-SIDE), COLOURS, 0),
    "BMP 8 bits": (
        lambda: bmp(8, RAMP[::-1].astype(np.uint8).tobytes(),
                    b"".join(bytes([n, n, n, 0]) for n in range(256))), GREY, 0),
    "GIF": (lambda: encoded(GREY, "GIF", "L"), GREY, 0),
    "animated GIF": (
        lambda: encoded(RAMP.astype(np.uint8), "GIF", save_all=True,
                        append_images=[Image.new("L", (32, 32), 9)]), GREY, 0),
    "GIF with a comment": (lambda: encoded(GREY, "GIF", "L", comment=b"\x1b[2J" * 50), GREY, 0),
    "WEBP lossless": (lambda: encoded(COLOURS, "WEBP", lossless=True), COLOURS, 0),
    "WEBP with alpha": (
        lambda: encoded(ALPHA, "WEBP", lossless=True, exact=True),
        laid_on_white(COLOURS, RAMP.T), 1),
    "animated WEBP": (
        lambda: encoded(COLOURS, "WEBP", lossless=True, save_all=True,
                        append_images=[Image.new("RGB", (32, 32))]), COLOURS, 0),
    "JPEG grey": (lambda: encoded(np.full((SIDE, SIDE), 90, np.uint8), "JPEG", quality=100),
                  np.full((SIDE, SIDE, 3), 90), 1),
    "JPEG progressive": (
        lambda: encoded(np.full((SIDE, SIDE, 3), 90, np.uint8), "JPEG", progressive=True),
        np.full((SIDE, SIDE, 3), 90), 1),
    "JPEG with bytes behind its end": (
        lambda: encoded(np.full((SIDE, SIDE, 3), 90, np.uint8), "JPEG") + b"\xff\xda" * 99,
        np.full((SIDE, SIDE, 3), 90), 1),
    "JPEG with a comment of control characters": (
        lambda: encoded(np.full((SIDE, SIDE, 3), 90, np.uint8), "JPEG", comment=b"\x1b[2J"),
        np.full((SIDE, SIDE, 3), 90), 1),
    "GIF with a frame of half its height": (
        lambda: encoded(GREY[:16], "GIF", "L").replace(b"GIF87a \0\x10", b"GIF87a \0\x20"),
        np.concatenate([GREY[:16], 0 * GREY[16:]]), 0),
    "JPEG with restart markers": (
        lambda: encoded(np.full((SIDE, SIDE, 3), 90, np.uint8), "JPEG", restart_marker_blocks=1),
        np.full((SIDE, SIDE, 3), 90), 1),
    "TIFF with a colour profile of numbers": (
        lambda: tiff(RAMP.astype(np.uint8).tobytes(),
                     {258: 8, 262: 1, 277: 1, 34675: (1, 2, 3, 4)}), GREY, 0),
    "EXIF turned by 180": (lambda: turned(3), COLOURS[::-1, ::-1], 0),
    "EXIF mirrored": (lambda: turned(2), COLOURS[:, ::-1], 0),
    "EXIF turned by 90": (lambda: turned(6), np.rot90(COLOURS, -1), 0),
    "EXIF orientation 9": (lambda: turned(9), COLOURS, 0),
    "EXIF orientation in TIFF": (lambda: turned(3, "TIFF"), COLOURS[::-1, ::-1], 0),
}  # fmt: skip


def encoded_interlaced() -> bytes:
    """Adam7: the seven passes one after the other."""
    grey, rows = RAMP.astype(np.uint8), b""
    for x, y, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4),
                         (1, 0, 2, 2), (0, 1, 1, 2)):  # fmt: skip
        rows += lines(np.ascontiguousarray(grey[y::dy, x::dx]))
    return png(rows, 8, 0, interlace=1)


def half_jpeg(**how: Any) -> bytes:
    """The first scan ends half-way, and so does the picture."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    data = encoded(noise, "JPEG", quality=90, **how)
    start = data.index(b"\xff\xda")
    end = start + next(at for at in range(2, len(data)) if data[start + at] == 0xFF
                       and data[start + at + 1] not in (0, *range(0xD0, 0xD8)))  # fmt: skip
    return data[: (start + end) // 2] + b"\xff\xd9"


REFUSED: dict[str, tuple[Made, str]] = {
    "PNG without pixels": (
        lambda: b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0))
        + chunk(b"IEND", b""), "a.png"),
    "PNG cut within its pixels": (lambda: encoded(COLOURS, "PNG")[:-40], "damaged"),
    "PNG with a wrong checksum": (
        lambda: encoded(COLOURS, "PNG").replace(b"IHDR\0\0\0 \0\0\0 ", b"IHDR\0\0\0!\0\0\0 "),
        "a.png"),
    "PNG of size 0": (lambda: png(b"", 8, 2, side=(0, 0)), "a.png"),
    "PNG of 2^31 pixels": (lambda: png(b"", 8, 2, side=(2**31 - 1, 1)), "a.png"),
    "PNG without its palette": (lambda: png(lines(RAMP.astype(np.uint8)), 8, 3), "palette"),
    "PNG of 3 bits": (lambda: png(lines(COLOURS), 3, 2), "a.png"),
    "text chunk that expands to 100 MB": (
        lambda: png(lines(COLOURS), 8, 2,
                    chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(100_000_000)))), "a.png"),
    "TIFF whose strip lies outside": (
        lambda: tiff(b"", {258: 8, 262: 1, 277: 1, 273: 2**31, 279: 2**31}), "a.png"),
    "TIFF whose directories go in a circle": (
        lambda: b"II*\0\x08\0\0\0" + struct.pack("<H", 0) + struct.pack("<I", 8), "a.png"),
    "GIF without a frame": (lambda: b"GIF89a" + struct.pack("<HHBBB", 32, 32, 0, 0, 0) + b";",
                            "a.png"),
    "WEBP with a wrong size": (
        lambda: damaged(encoded(COLOURS, "WEBP", lossless=True), 0.5, b"\xff" * 40), "a.png"),
    "BMP of 2 GB": (lambda: bmp(24, b"", height=2**30), "pixels"),
    "JPEG of its header alone": (lambda: encoded(COLOURS, "JPEG")[:200], "a.png"),
    "float TIFF with infinity": (
        lambda: encoded(np.full((SIDE, SIDE), np.inf, np.float32), "TIFF"), "not finite"),
    "float TIFF of negative greys": (
        lambda: encoded(np.full((SIDE, SIDE), -5, np.float32), "TIFF"), "greys go from"),
    "PNG whose pixels end early": (
        lambda: png(lines(COLOURS[:16]), 8, 2), "50% of its rows"),
    "PNG of one bit whose pixels end early": (
        lambda: png(lines(np.packbits(RAMP[:31] > 127, axis=1)), 1, 0), "97% of its rows"),
    "interlaced PNG whose pixels end early": (
        lambda: png(bytes(40), 8, 0, interlace=1), "of its rows"),
    "PNG without a byte of pixels": (lambda: png(b"", 8, 2), "0% of its rows"),
    "JPEG whose scan ends early": (half_jpeg, "of its pixels are missing"),
    "progressive JPEG whose first scan ends early": (
        lambda: half_jpeg(progressive=True), "of its pixels are missing"),
    "JPEG with restart markers whose scan ends early": (
        lambda: half_jpeg(restart_marker_blocks=2), "of its pixels are missing"),
    "TIFF with a strip left out": (
        lambda: tiff(RAMP.astype(np.uint8).tobytes(),
                     {258: 8, 262: 1, 277: 1, 278: 16, 273: (8, 0), 279: (512, 512)}), "strip"),
    "TIFF of seven samples": (
        lambda: tiff(RAMP.astype(np.uint8).tobytes() * 7, {258: (8,) * 7, 262: 2, 277: 7}),
        "not a picture we can read"),
    "TIFF whose compressed strip ends early": (
        lambda: tiff(zlib.compress(bytes(512)), {258: 8, 262: 1, 277: 1, 259: 8}), "a.png"),
    "GIF whose pixels end early": (
        lambda: encoded(GREY[:16], "GIF", "L").replace(b" \0\x10", b" \0\x20"), "a.png"),
    "WEBP cut, with a size that fits": (
        lambda: (lambda data: data[:4] + struct.pack("<I", 200) + data[8:208])(
            encoded(COLOURS, "WEBP", lossless=True)), "a.png"),
    "ICO": (lambda: encoded(COLOURS, "ICO"), "not a picture we can read"),
    "TGA": (lambda: encoded(COLOURS, "TGA"), "not a picture we can read"),
    "PDF": (lambda: encoded(COLOURS, "PDF"), "not a picture we can read"),
    "PPM": (lambda: encoded(COLOURS, "PPM"), "not a picture we can read"),
    "zip archive": (lambda: b"PK\x03\x04" + bytes(200), "not a picture we can read"),
}  # fmt: skip


def test_there_are_sixty() -> None:
    assert len(READ) + len(REFUSED) >= 60


@pytest.mark.parametrize("kind", READ)
def test_odd_pictures_have_these_values(tmp_path: Path, kind: str) -> None:
    make, wanted, within = READ[kind]
    path = tmp_path / ("a.jpg" if kind.endswith(".jpg") else "a.png")
    path.write_bytes(make())
    got = photo.read_photo(path).pixels
    assert got.shape == wanted.shape
    assert np.abs(got.astype(float) - wanted).max() <= within + 0.5
    glanced = photo.glance(path, 16).photo.pixels
    assert min(glanced.shape[:2]) >= 16


@pytest.mark.parametrize("kind", REFUSED)
def test_odd_pictures_that_are_refused(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # as outside pytest: errors go to stderr
    make, word = REFUSED[kind]
    (tmp_path / "a.png").write_bytes(make())
    with pytest.raises(PictureError) as caught:
        photo.read_photo(tmp_path / "a.png")
    message = str(caught.value)
    assert word in message and "a.png" in message and message.isprintable()
    assert capfd.readouterr().err == ""
