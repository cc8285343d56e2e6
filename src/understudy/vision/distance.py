"""The protocol of perceptual distances, as projection uses it.

The published programs take a VGG or LPIPS whose weights have terms of their own; here it is an
argument. `evaluate/perceptual.py` has two: the built-in recogniser's features, and LPIPS.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LOOK = 256  # pixels a side: larger pictures are averaged down before projection looks at them


@runtime_checkable
class Perceptual(Protocol):
    """Features of pictures in [-1, 1], and a distance between two sets of them.

    Differentiable in the first features; `name` goes into the record of a latent.
    """

    @property
    def name(self) -> str: ...

    def features(self, pictures: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, ...]:
        """What is compared, each (b, ...)."""
        ...

    def distance(self, ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> Float[Tensor, " b"]:
        """How far apart, 0 = the same."""
        ...


def shrunk(pictures: Float[Tensor, "b 3 h w"], side: int = LOOK) -> Float[Tensor, "b 3 h2 w2"]:
    """Averaged down so that no side is longer than `side` pixels; smaller ones as they are."""
    height, width = pictures.shape[-2:]
    longest = max(height, width)
    if longest <= side:
        return pictures
    size = (round(height * side / longest), round(width * side / longest))
    return F.interpolate(pictures, size=size, mode="area")
