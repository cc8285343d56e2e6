"""Makes an edit agree with the photo along the border of what is pasted.

The offset between the two is known on the border. Inside, it is the screened membrane through
these values: (Laplacian - 1 / reach^2) offset = 0 (Perez et al. 2003, section 3; the screen is that
of Bhat et al. 2008). It has no seam at the border, is nowhere larger than on the border, and fades
with the distance from it, so that it does not colour the subject. Knows pictures and masks only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

REACH = 0.03  # of the longer side: over this distance the offset falls to 1/e
ROUNDS = 400  # of conjugate gradients, at most
EXACT = 1e-4  # of the right side's norm: a residual below it ends them


def offset(
    photo: Float[Tensor, "1 3 h w"],
    edited: Float[Tensor, "k 3 h w"],
    taken: Bool[Tensor, "k 1 h w"],
    most: float,
) -> Float[Tensor, "k 3 h w"]:
    """What to add to `edited` where it is taken; 0 elsewhere.

    most: a difference on the border, in the range from -1 to 1, that is larger in any colour is
    one of content. It is left out: the offset ends there with slope 0, as at the picture's edge.
    """
    inside = taken.to(edited)
    apart = photo.to(edited) - edited
    like = (apart.abs().amax(1, keepdim=True) <= most).to(edited)
    border = like * (1 - inside)
    count = _around(inside + border) + 1 / (REACH * max(edited.shape[-2:])) ** 2

    def membrane(values: Tensor) -> Tensor:
        return inside * (count * values - _around(values))

    return _solved(membrane, inside * _around(border * apart))


def _around(values: Float[Tensor, "k c h w"]) -> Float[Tensor, "k c h w"]:
    """The sum of the four neighbours; 0 beyond the picture."""
    wide = F.pad(values, (1, 1, 1, 1))
    rows = wide[..., :-2, 1:-1] + wide[..., 2:, 1:-1]
    return rows + wide[..., 1:-1, :-2] + wide[..., 1:-1, 2:]


def _solved(
    operator: Callable[[Tensor], Tensor], right: Float[Tensor, "k c h w"]
) -> Float[Tensor, "k c h w"]:
    """Conjugate gradients for a symmetric positive definite operator, each picture by itself."""

    def dot(one: Tensor, other: Tensor) -> Tensor:
        return (one * other).sum((1, 2, 3), keepdim=True)

    found, rest = torch.zeros_like(right), right
    way, size = right, dot(right, right)
    least = size * EXACT**2
    for _ in range(ROUNDS):
        if bool((size <= least).all()):
            break
        steep = operator(way)
        share = size / dot(way, steep).clamp_min(torch.finfo(right.dtype).tiny)
        found, rest = found + share * way, rest - share * steep
        size, before = dot(rest, rest), size
        way = rest + size / before.clamp_min(torch.finfo(right.dtype).tiny) * way
    return found
