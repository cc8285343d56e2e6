"""Adam on the moving part of a latent (Kingma & Ba 2015, arXiv:1412.6980), as a pure function.

Written out instead of torch.optim.Adam, because a drag is a value: undo restores the moments, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.drag.prior import LatentPrior

BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam's, as everybody has them


@dataclass(frozen=True, eq=False)
class Rate:
    """What changes from step to step: the root of the second moment's bias correction, and the
    learning rate over that of the first one, negative. Tensors, so that a recorded step reads new
    ones."""

    root: Float[Tensor, ""]
    size: Float[Tensor, ""]

    @classmethod
    def of(cls, count: int, learning_rate: float, like: Tensor) -> Rate:
        """Of the step of this number, from 1 on; on the device and in the dtype of `like`."""
        root = math.sqrt(1 - BETAS[1] ** count)
        size = -learning_rate / (1 - BETAS[0] ** count)
        # Filled by a kernel that takes the number as an argument: nothing is copied to the device.
        return cls(like.new_full((), root), like.new_full((), size))


@torch.no_grad()
def adam(
    moving_ws: Float[Tensor, "1 rows w_dim"],
    moments: tuple[Float[Tensor, "1 rows w_dim"], Float[Tensor, "1 rows w_dim"]],
    slope: Float[Tensor, "1 rows w_dim"],
    rate: Rate,
    prior: LatentPrior | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The latent after a step and the new moments, in torch.optim.Adam's order of operations.

    With a prior in coordinates along the principal directions of W, so that directions in which
    latents hardly vary hardly move.
    """
    slope = slope if prior is None else prior.inwards(slope)
    first = moments[0].lerp(slope, 1 - BETAS[0])
    second = (moments[1] * BETAS[1]).addcmul_(slope, slope, value=1 - BETAS[1])
    below = (second.sqrt() / rate.root).add_(EPSILON)
    if prior is None:
        return moving_ws.addcdiv(first * rate.size, below), first, second
    return moving_ws + rate.size * prior.outwards(first / below), first, second
