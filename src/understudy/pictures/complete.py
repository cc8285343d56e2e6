"""Whether a picture file holds all of its pixels: decoders silently fill in missing ones.

A PNG whose zlib stream ends early, a JPEG whose scan ends early and a TIFF without one of its
strips decode without an error, to black, to grey or to bytes of the header. Only `photo` calls it.
"""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from PIL import Image, ImageChops

from understudy.errors import PictureError
from understudy.pictures.guards import CHUNK

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG's colour type
# Adam7: first column and row, distance of columns and rows.
PASSES = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # fmt: skip
STRIPS, TILES = 273, 324  # TIFF tags of offsets
TIFF_HEADER = 8  # bytes: no strip begins before
HUFFMAN = range(0xC0, 0xC3)  # JPEG: baseline, extended and progressive frames with Huffman codes
END, SCAN, RESTARTS = 0xD9, 0xDA, 0xDD  # JPEG markers
# Bytes that are no marker and, read as Huffman codes, no pixels of the picture either.
PROBE = bytes(random.Random(0).choices(range(0xFF), k=512))
# The same for a scan with restart markers, after which a decoder starts again.
RESTARTED = b"".join(PROBE + bytes((0xFF, 0xD0 + number)) for number in range(8))
PROBED = 8  # pixels of a picture for each byte: read as pixels, they fill more than MISSING
MISSING = 0.01  # share of a JPEG's pixels; less, such as a lost last block, is not refused


def check_complete(file: Path, image: Image.Image) -> None:
    """Raise PictureError, naming the file, where pixels are missing. `image` is opened, not loaded.

    Of a PNG the decompressed rows are counted. A JPEG is decoded a second time at an eighth of its
    size with further bytes behind each scan: they are read as pixels only where the scan ends
    early. The offsets of a TIFF's strips and tiles must lie behind its header.
    """
    if image.format == "PNG":
        if image.mode == "P" and image.palette is None:  # Pillow would make up one of greys
            raise _refusal(file, "its palette is missing")
        with file.open("rb") as stream:
            _check_png(file, stream)
    elif image.format in ("JPEG", "MPO"):
        _check_jpeg(file, file.read_bytes(), image.width * image.height)
    elif image.format == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        for tag in (STRIPS, TILES):
            offsets = tags.get(tag, ())
            offsets = offsets if isinstance(offsets, tuple) else (offsets,)
            if any(offset < TIFF_HEADER for offset in offsets):
                raise _refusal(file, "a strip or a tile is missing")


def _refusal(file: Path, reason: str) -> PictureError:
    return PictureError(f"{file} is damaged or truncated ({reason}). Use a complete copy.")


def uncovered(image: Image.Image) -> bool:
    """Whether the first frame of an opened GIF leaves a part of the picture to the background."""
    tiles: list[Any] = list(getattr(image, "tile", ()))
    return image.format == "GIF" and bool(tiles) and tiles[0][1] != (0, 0, *image.size)


def _check_png(file: Path, stream: IO[bytes]) -> None:
    stream.read(8 + 8)  # the signature; length and name of IHDR
    head = stream.read(13 + 4)
    width, height = int.from_bytes(head[:4]), int.from_bytes(head[4:8])
    wanted = _png_bytes(width, height, head[8] * CHANNELS.get(head[9], 1), bool(head[12]))
    unpacked, found = zlib.decompressobj(), 0
    try:
        for data in _png_data(stream):
            while data and found < wanted and not unpacked.eof:
                found += len(unpacked.decompress(data, CHUNK))
                data = unpacked.unconsumed_tail
            if found >= wanted:
                return
    except zlib.error:
        return  # the decoder says what is wrong
    raise _refusal(file, f"only {found / wanted:.0%} of its rows are present")


def _png_data(stream: IO[bytes]) -> Iterator[bytes]:
    """The content of the first run of IDAT chunks, in pieces."""
    begun = False
    while len(start := stream.read(8)) == 8:
        left = int.from_bytes(start[:4])
        if start[4:] != b"IDAT":
            if begun:
                return
            stream.seek(left + 4, io.SEEK_CUR)
            continue
        begun = True
        while left and (data := stream.read(min(left, CHUNK))):
            left -= len(data)
            yield data
        stream.read(4)


def _png_bytes(width: int, height: int, bits: int, interlaced: bool) -> int:
    """The bytes of all rows, each with its filter type."""
    found = 0
    for x, y, across, down in PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - x) // across), -(-(height - y) // down)
        if columns > 0 and rows > 0:
            found += rows * (1 + (columns * bits + 7) // 8)
    return found


def _check_jpeg(file: Path, data: bytes, pixels: int) -> None:
    ends, restarts = _scan_ends(data)
    if not ends:
        return
    pieces = [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]
    probe = RESTARTED if restarts else PROBE
    probe *= 1 + pixels // PROBED // len(probe)
    first, other = _small(data), _small(probe.join(pieces))
    if first is None or other is None:
        return  # the decoder says what is wrong
    differing = ImageChops.difference(first, other).convert("L").histogram()
    share = 1 - differing[0] / sum(differing)
    if share > MISSING:
        raise _refusal(file, f"about {share:.0%} of its pixels are missing")


def _scan_ends(data: bytes) -> tuple[list[int], bool]:
    """Where each scan of a JPEG's first picture ends, and whether scans have restart markers.

    There is no end for arithmetic codes, whose data may end early, nor for a file that cannot be
    followed.
    """
    at, ends, restarts = 2, list[int](), False
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes
            at += 1
            continue
        if marker == END:
            return ends, restarts
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC, *HUFFMAN):
            return [], False
        restarts = restarts or marker == RESTARTS
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker == SCAN:
            at = _entropy_end(data, at)
            ends.append(at)
    return ends, restarts


def _entropy_end(data: bytes, at: int) -> int:
    """The next marker that ends a scan: not an escaped 0xFF, nor a restart."""
    while (found := data.find(b"\xff", at)) >= 0 and found + 1 < len(data):
        if data[found + 1] and not 0xD0 <= data[found + 1] <= 0xD7:
            return found
        at = found + 2 if data[found + 1] != 0xFF else found + 1
    return len(data)


def _small(data: bytes) -> Image.Image | None:
    """A JPEG decoded at an eighth of its size; None where it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            image.draft("RGB", (max(image.width // 8, 1), max(image.height // 8, 1)))
            return image.convert("RGB")
    except Exception:  # Pillow raises whatever a bad file makes it raise
        return None
