"""Whether two computations of the same values agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

# The largest difference allowed, as a share of the largest value. The same kernels compute both, so
# this leaves room for sums in another order, no more.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 2e-2}
# Tensors whose values are smaller than this share of the largest of all are judged by that share:
# a gradient that cancels out is nothing but rounding.
SMALL = 1e-3


def tolerance(dtypes: Iterable[torch.dtype | None]) -> float:
    """That of the coarsest dtype."""
    return max((TOLERANCES[one] for one in dtypes if one in TOLERANCES), default=0.0)


@torch.no_grad()
def difference(made: Sequence[Tensor], right: Sequence[Tensor], allowed: float) -> str:
    """How far `made` is from `right`, one line; "" where they agree.

    allowed: as a share of the largest value. NaN and infinity agree with themselves only. Other
    tensors than those of floating-point numbers must be equal. Waits for the device.
    """
    pairs = list(zip(made, right, strict=True))
    for a, b in pairs:
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return f"a tensor of {tuple(a.shape)} {a.dtype} for one of {tuple(b.shape)} {b.dtype}"
    measured = [_measured(a, b) for a, b in pairs if a.numel()]
    if not measured:
        return ""
    rows: list[tuple[float, float, float]] = torch.stack(measured).tolist()
    least = SMALL * max(largest for _, largest, _ in rows)
    worst = 0.0
    for apart, largest, odd in rows:
        if odd:
            return "numbers for values that are not finite, or the reverse"
        scale = max(largest, least)
        if apart:
            worst = max(worst, apart / scale if scale else float("inf"))
    if worst <= allowed:
        return ""
    return f"a difference of {worst:.2g} of the largest value, where {allowed:.2g} is allowed"


def _measured(a: Tensor, b: Tensor) -> Tensor:
    """The largest difference, the largest value, and whether values that are not finite differ."""
    if not a.is_floating_point():
        none = torch.zeros((), dtype=torch.float64, device=a.device)
        return torch.stack([none.masked_fill((a != b).any(), torch.inf), none, none])
    wide = torch.promote_types(a.dtype, torch.float32)
    a, b = a.to(wide), b.to(wide)
    finite = a.isfinite() & b.isfinite()
    odd = (~finite & (a != b) & ~(a.isnan() & b.isnan())).any()
    apart = (a - b).abs().where(finite, 0).amax()
    largest = b.abs().where(finite, 0).amax()
    return torch.stack([apart.double(), largest.double(), odd.double()])
