"""Deep, inverted and keyed pictures have the values computed here; a decoder's work is bounded."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from understudy.errors import PictureError
from understudy.pictures import guards, photo

STEPS = np.arange(256).reshape(16, 16)


def tiff(
    data: bytes, bits: int, photometric: int, order: str = "<", float32: bool = False
) -> bytes:
    """An uncompressed 16 x 16 grey TIFF in one strip."""
    tags = {256: 16, 257: 16, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 16}
    tags |= {279: len(data)} | ({339: 3} if float32 else {})
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + len(data))
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    return head + data + struct.pack(order + "H", len(tags)) + entries + bytes(4)


def twelve(values: np.ndarray) -> bytes:
    """Two samples in three bytes, high bits first."""
    bits = "".join(f"{value:012b}" for value in values.ravel())
    return bytes(int(bits[start : start + 8], 2) for start in range(0, len(bits), 8))


def png(rows: np.ndarray, bits: int, colour: int, key: bytes) -> bytes:
    """A 16 x 16 PNG of packed rows with a tRNS chunk."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, bits, colour, 0, 0, 0))
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    end = chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"tRNS", key) + end


def read(path: Path, data: bytes) -> np.ndarray:
    path.write_bytes(data)
    assert (photo.glance(path, 16).photo.pixels == photo.read_photo(path).pixels).all()
    return photo.read_photo(path).pixels


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [8, 12, 16, 32])
@pytest.mark.parametrize("photometric", [0, 1])
def test_grey_tiff(tmp_path: Path, order: str, bits: int, photometric: int) -> None:
    if bits == 8:
        values, data = STEPS / 255, STEPS.astype(np.uint8).tobytes()
    elif bits == 12:
        deep = (STEPS * 4095) // 255
        values, data = deep / 4095, twelve(deep)
    elif bits == 16:
        deep = (STEPS * 65535) // 255 - (STEPS > 0) * 100
        values, data = deep / 65535, deep.astype(order + "u2").tobytes()
    else:
        values = STEPS / 255
        data = values.astype(order + "f4").tobytes()
    wanted = np.rint((values if photometric else 1 - values) * 255)
    got = read(tmp_path / "a.tif", tiff(data, bits, photometric, order, bits == 32))
    assert (got == wanted[..., None]).all()


def test_compressed_min_is_white(tmp_path: Path) -> None:
    """Compressed strips go through libtiff, another path of Pillow's."""
    stream = io.BytesIO()
    deep = (STEPS * 257).astype(np.uint16)
    Image.fromarray(deep).save(stream, "TIFF", compression="tiff_lzw", tiffinfo={262: 0})
    with Image.open(io.BytesIO(stream.getvalue())) as image:
        tag = dict(image.tag_v2)[262]  # pyright: ignore[reportAttributeAccessIssue]
    wanted = STEPS if tag else 255 - STEPS
    assert (read(tmp_path / "a.tif", stream.getvalue()) == wanted[..., None]).all()


def test_sixteen_bit_grey_key(tmp_path: Path) -> None:
    deep = STEPS * 257
    deep[0, 6] = 5 * 257 + 1  # differs from the key in the low byte alone
    got = read(tmp_path / "a.png", png(deep.astype(">u2"), 16, 0, struct.pack(">H", 5 * 257)))
    wanted = np.rint(deep / 257)
    wanted[0, 5] = 255
    assert (got == wanted[..., None]).all()


def test_sixteen_bit_colour_key(tmp_path: Path) -> None:
    deep = np.stack([STEPS * 256 + 7] * 3, -1)
    deep[0, 6] = (5 * 256 + 7, 5 * 256 + 7, 5 * 256 + 8)
    key = struct.pack(">HHH", *[5 * 256 + 7] * 3)
    got = read(tmp_path / "a.png", png(deep.astype(">u2"), 16, 2, key))
    wanted = deep // 256
    wanted[0, 5] = 255
    assert (got == wanted).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_shallow_grey_key(tmp_path: Path, bits: int) -> None:
    most = 2**bits - 1
    levels = STEPS % (most + 1)
    spread = np.array([[f"{value:0{bits}b}" for value in row] for row in levels])
    packed = [int("".join(row), 2).to_bytes(2 * bits, "big") for row in spread]
    rows = np.array([np.frombuffer(row, np.uint8) for row in packed])
    key = most // 2
    wanted = np.where(levels == key, 255, levels * 255 // most)
    got = read(tmp_path / "a.png", png(rows, bits, 0, struct.pack(">H", key)))
    assert (got == wanted[..., None]).all()


def test_scans_times_pixels_are_bounded(tmp_path: Path) -> None:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "JPEG", progressive=True)
    whole = stream.getvalue()
    (tmp_path / "a.jpg").write_bytes(whole)
    assert photo.read_photo(tmp_path / "a.jpg").size == (400, 400)
    last = whole.rindex(guards.START_OF_SCAN)
    (tmp_path / "b.jpg").write_bytes(whole[:-2] + whole[last:-2] * 9_000 + whole[-2:])
    with pytest.raises(PictureError, match=r"160,000 pixels in \d+ scans"):
        photo.read_photo(tmp_path / "b.jpg")


def test_libtiff_writes_nothing_to_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "TIFF", compression="tiff_lzw")
    data = bytearray(stream.getvalue())
    data[200:400] = b"\xff" * 200
    (tmp_path / "a.tif").write_bytes(data)
    with Image.open(tmp_path / "a.tif") as image, pytest.raises(OSError, match="decod"):
        image.load()
    assert capfd.readouterr().err, "the file no longer makes libtiff write"
    with pytest.raises(PictureError):
        photo.read_photo(tmp_path / "a.tif")
    assert capfd.readouterr().err == ""


def test_sixteen_bits_are_converted_in_bands(tmp_path: Path) -> None:
    Image.fromarray(np.full((2000, 2000), 40_000, np.uint16)).save(tmp_path / "a.png")
    tracemalloc.start()
    photo.read_photo(tmp_path / "a.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2000 * 2000 * 8, "one float64 copy is 32 MB"
