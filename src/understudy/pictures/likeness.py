"""Near-duplicates among photos, found by difference hashes. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int16, UInt8

from understudy.pictures.photo import Pixels, fit

SQUARE = 16  # the side of a photo's mark
NEAR = 0.2  # share of bits in which marks of copies differ; strangers differ in 0.4 and more


def mark(pixels: Pixels) -> UInt8[np.ndarray, " bits"]:
    """A photo's mark, alike for copies at other sizes and qualities: which of neighbouring regions
    is lighter (difference hash), in both directions."""
    small = grey_of(fit(pixels, (SQUARE + 1, SQUARE + 1)))
    across = np.diff(small, axis=1)[:SQUARE] > 0
    down = np.diff(small, axis=0)[:, :SQUARE] > 0
    return np.packbits(np.stack([across, down]).ravel())


def copies_of(marks: Sequence[UInt8[np.ndarray, " bits"]]) -> list[int]:
    """For each photo, by its mark, the place of the earliest photo that it nearly equals; its own
    place where there is none."""
    first: list[int] = []
    for place, one in enumerate(marks):
        apart = [float(np.bitwise_count(other ^ one).mean()) / 8 for other in marks[:place]]
        near = [number for number, share in enumerate(apart) if share <= NEAR]
        first.append(first[near[0]] if near else place)
    return first


def grey_of(pixels: UInt8[np.ndarray, "h w 3"]) -> Int16[np.ndarray, "h w"]:
    """Greys of 0 to 255, green counting twice."""
    red, green, blue = (pixels[..., channel].astype(np.int16) for channel in range(3))
    return (red + 2 * green + blue) >> 2
