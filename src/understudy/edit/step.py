"""What an edit yields after each step, whatever its method."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class EditStep:
    """One finished step of an edit.

    index counts from 0 to total - 1. target "k c h w" are the latents after it, mask "m 1 h w"
    where they may differ from the source's, nfe the network evaluations it took.
    """

    index: int
    total: int
    time: float
    target: Float[Tensor, "k c h w"]
    mask: Float[Tensor, "m 1 h w"] | None
    nfe: int
