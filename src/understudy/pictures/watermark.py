"""An invisible watermark: 32 bits in the pixels, readable after JPEG and resizing.

The mark is a number of 32 bits and its CRC-32. It is embedded in the luminance, averaged to a
grid of 128 x 128 cells (the low-pass band of a Haar wavelet). Its 8 x 8 blocks are transformed
(DCT), and projections of mid-frequency coefficients on fixed random directions are moved to one of
two lattices, one for a bit of 0 and one for 1 (spread-transform dither modulation: Chen & Wornell
2001, IEEE Trans. Inf. Theory 47, section V). Each bit is repeated `REPEATS` times all over the
picture; reading adds the repetitions' soft values (a repetition code with soft decisions). The
grid does not depend on the picture's size, so a resized picture is read like the original. Cropping
by more than about 1 % of a side loses the mark. Knows nothing of torch.

A picture without a mark passes the CRC by chance with probability 2^-32 for each of the two
readings (as it is, and mirrored).
"""

from __future__ import annotations

import hashlib
import zlib
from functools import cache

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

Pixels = UInt8[np.ndarray, "h w 3"]
Grid = Float[np.ndarray, "128 128"]

SIDE = 128  # cells a side; a picture needs as many pixels
BLOCK = 8
BITS = 64  # 32 of the number, 32 of its CRC
REPEATS = 8
STEP = 26.0  # distance of the lattices' points, in DCT units of 8-bit luminance
PASSES = 2  # embedding again corrects what rounding, clipping and resampling took
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
KEY = b"understudy watermark 1"


def markable(pixels: Pixels) -> bool:
    """Whether a picture is large enough to carry a mark: 128 pixels a side or more."""
    return min(pixels.shape[:2]) >= SIDE


def embed(pixels: Pixels, number: int) -> Pixels:
    """The picture with `number` (0 to 2^32 - 1) in it; at about 44 dB of the original.

    Raises ValueError for a number out of range, or a picture with a side under 128 pixels.
    """
    if not 0 <= number < 2**32:
        raise ValueError(f"Expected a number of 32 bits, got {number}.")
    if not markable(pixels):
        raise ValueError(f"A mark needs {SIDE} pixels a side, got {pixels.shape[:2]}.")
    bits = _message(number)
    height, width = pixels.shape[:2]
    marked = pixels.astype(np.float32)
    for _ in range(PASSES):
        change = _moved(_grid(np.rint(marked)), bits)
        marked += _resized(change, (width, height), Image.Resampling.BICUBIC)[:, :, None]
        np.clip(marked, 0, 255, out=marked)
    return np.rint(marked, out=marked).astype(np.uint8)


def read(pixels: Pixels) -> int | None:
    """The number in a picture, as it is or mirrored; None where there is no mark."""
    for seen in (pixels, pixels[:, ::-1]):
        number = _number(soft_bits(seen) < 0)
        if number is not None:
            return number
    return None


def soft_bits(pixels: Pixels) -> Float[np.ndarray, " bits"]:
    """For each bit of the message the mean over its repetitions: towards 1 for 0, -1 for 1."""
    _, directions, dither = _plan()
    coefficients = _coefficients(_grid(pixels.astype(np.float64)))
    projected = np.einsum("brl,brl->br", coefficients, directions)
    return np.cos(2 * np.pi * (projected - dither) / STEP).mean(axis=1)


def _message(number: int) -> np.ndarray:
    data = number.to_bytes(4, "big")
    return np.unpackbits(np.frombuffer(data + zlib.crc32(data).to_bytes(4, "big"), np.uint8))


def _number(bits: np.ndarray) -> int | None:
    data = np.packbits(bits).tobytes()
    return (
        int.from_bytes(data[:4], "big")
        if zlib.crc32(data[:4]).to_bytes(4, "big") == data[4:]
        else None
    )


def _moved(grid: Grid, bits: np.ndarray) -> Grid:
    """What must be added to the grid so that each projection lies on its bit's lattice."""
    places, directions, dither = _plan()
    projected = np.einsum("brl,brl->br", _coefficients(grid), directions)
    offset = dither + bits[:, None] * (STEP / 2)
    shift = STEP * np.rint((projected - offset) / STEP) + offset - projected
    change = np.zeros((SIDE // BLOCK) ** 2 * BLOCK * BLOCK)
    change[places] = shift[:, :, None] * directions
    blocks = change.reshape(-1, BLOCK, BLOCK)
    return _joined(_cosines().T @ blocks @ _cosines())


def _coefficients(grid: Grid) -> Float[np.ndarray, "bits repeats length"]:
    places, _, _ = _plan()
    blocks = _cosines() @ _split(grid) @ _cosines().T
    return blocks.reshape(-1)[places]


@cache
def _plan() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fixed for all pictures: places of coefficients, directions of unit length, dither.

    Drawn from SHAKE-256, so that no change of a random generator makes old marks unreadable.
    """
    u, v = np.meshgrid(np.arange(BLOCK), np.arange(BLOCK), indexing="ij")
    middle = np.flatnonzero(((u + v >= 2) & (u + v <= 5)).reshape(-1))
    blocks = (SIDE // BLOCK) ** 2
    all_places = (np.arange(blocks)[:, None] * BLOCK * BLOCK + middle).reshape(-1)
    length = all_places.size // (BITS * REPEATS)
    used = BITS * REPEATS * length
    order = np.argsort(_drawn(b"order", all_places.size), kind="stable")[:used]
    places = all_places[order].reshape(BITS, REPEATS, length)
    signs = np.where(_drawn(b"signs", used) % 2, 1.0, -1.0).reshape(places.shape)
    dither = (_drawn(b"dither", BITS * REPEATS) / 2.0**64 * STEP).reshape(BITS, REPEATS)
    return places, signs / np.sqrt(length), dither


def _drawn(purpose: bytes, count: int) -> np.ndarray:
    return np.frombuffer(hashlib.shake_256(KEY + purpose).digest(8 * count), dtype="<u8")


@cache
def _cosines() -> Float[np.ndarray, "8 8"]:
    """The orthonormal DCT-II matrix."""
    n = np.arange(BLOCK)
    matrix = np.cos(np.pi * (2 * n[None] + 1) * n[:, None] / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    matrix[0] /= np.sqrt(2)
    return matrix


def _grid(pixels: Float[np.ndarray, "h w 3"]) -> Grid:
    luminance = pixels @ LUMA.astype(pixels.dtype)
    return _resized(luminance, (SIDE, SIDE), Image.Resampling.BOX).astype(np.float64)


def _resized(
    plane: Float[np.ndarray, "h w"], size: tuple[int, int], how: Image.Resampling
) -> Float32[np.ndarray, "h2 w2"]:
    return np.asarray(Image.fromarray(plane.astype(np.float32)).resize(size, how))


def _split(grid: Grid) -> Float[np.ndarray, "256 8 8"]:
    n = SIDE // BLOCK
    return grid.reshape(n, BLOCK, n, BLOCK).transpose(0, 2, 1, 3).reshape(-1, BLOCK, BLOCK)


def _joined(blocks: Float[np.ndarray, "256 8 8"]) -> Grid:
    n = SIDE // BLOCK
    return blocks.reshape(n, n, BLOCK, BLOCK).transpose(0, 2, 1, 3).reshape(SIDE, SIDE)
