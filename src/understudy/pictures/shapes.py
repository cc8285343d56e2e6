"""Sizes for training: the size near the model's area whose aspect ratio is nearest a photo's."""

from __future__ import annotations

import math

WIDEST = 2.25  # longer side over shorter side: models draw longer shapes badly
LEAST = 0.8  # of the area of the model's native size
STEPS = 8  # of a model's side: sizes differ by this part of it
COARSEST = 64  # pixels: but by no more


def step_of(native: tuple[int, int], downscale: int) -> int:
    """Sides of training sizes are multiples of this, in pixels.

    An even number of latent cells, because networks halve their grids.
    """
    wanted = min(COARSEST, min(native) // STEPS)
    return math.ceil(max(1, wanted) / (2 * downscale)) * 2 * downscale


def bucket_of(photo: tuple[int, int], native: tuple[int, int], step: int) -> tuple[int, int]:
    """The training size (height, width) of a photo of (height, width).

    Of all sizes whose sides are multiples of `step`, with the area of the model's native size
    or a little less, that from which least of the photo is cut; of equals, the largest.
    """
    area = native[0] * native[1]
    found = {native}
    for width in range(step, math.isqrt(int(area * WIDEST)) + 1, step):
        largest = area // width // step * step
        smallest = math.ceil(LEAST * area / width / step) * step
        found |= {(height, width) for height in range(smallest, largest + 1, step)}
    allowed = [size for size in found if max(size) <= WIDEST * min(size)]
    return min(allowed, key=lambda size: (round(cut_share(photo, size), 2), -size[0] * size[1]))


def cut_share(size: tuple[int, int], wanted: tuple[int, int]) -> float:
    """The share of a picture of `size` (height, width) outside the wanted shape in its middle."""
    scale = max(wanted[0] / size[0], wanted[1] / size[1])
    return max(0.0, 1 - (wanted[0] * wanted[1]) / (size[0] * size[1] * scale**2))
