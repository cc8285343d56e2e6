"""What is yielded after each denoising step, and the stochastic noise that a step may add."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from understudy.transfer.schedule import Swaps


@dataclass(frozen=True)
class SwapStep:
    """One finished step of a swap.

    index counts from 0 to total - 1; timestep is the one just denoised. targets are the numbers
    of those still in the run, k of them; target "k c h w" and source "1 c h w" are the latents
    after the step (source: None once nothing reads it any more), clean "k c h w" the pictures'
    latents as far as they can be told now. swaps is what each took from the source, mask
    "k 1 h w" where the target was kept, rows what the step cost.
    """

    index: int
    total: int
    timestep: int
    targets: tuple[int, ...]
    target: Float[Tensor, "k c h w"]
    clean: Float[Tensor, "k c h w"]
    source: Float[Tensor, "1 c h w"] | None
    swaps: tuple[Swaps, ...]
    mask: Float[Tensor, "m 1 h w"] | None
    rows: int


@dataclass(frozen=True)
class Stirring:
    """Fresh noise for the targets: a share eta of what a step leaves, times temperature.

    A deterministic replay carries each small mistake of the network to the end; fresh noise lets
    later steps correct it. It wipes out what the inversion kept, so it wants a blend around it.
    """

    eta: float
    temperature: float = 1.0
    seed: int = 0
