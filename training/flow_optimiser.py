"""The optimiser of toybox-flow: Muon for the matrices of the blocks, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from understudy.models.precision import half_precision

MOMENTUM, DECAY = 0.95, 0.01
TERMS = (3.4445, -4.775, 2.0315)  # of the quintic of Newton and Schulz (Jordan et al. 2024)
ITERATIONS = 5


class Muon:
    """Muon (Jordan et al. 2024) with updates of AdamW's size (Liu et al. 2025, arXiv:2502.16982).

    As torch.optim.Muon with adjust_lr_fn="match_rms_adamw", but matrices of one shape are
    orthogonalised together: one by one they keep a GPU waiting for launches.
    """

    def __init__(self, matrices: Iterable[torch.nn.Parameter], rate: float) -> None:
        self.shapes: dict[tuple[int, ...], list[torch.nn.Parameter]] = {}
        for one in matrices:
            self.shapes.setdefault(tuple(one.shape), []).append(one)
        self.momenta = {
            shape: torch.zeros(len(some), *shape, device=some[0].device)
            for shape, some in self.shapes.items()
        }
        params = [one for some in self.shapes.values() for one in some]
        self.param_groups: list[dict[str, Any]] = [{"params": params, "lr": rate}]

    def zero_grad(self) -> None:
        for one in self.param_groups[0]["params"]:
            one.grad = None

    @torch.no_grad()
    def step(self) -> None:
        rate = self.param_groups[0]["lr"]
        for shape, some in self.shapes.items():
            slope, momentum = torch.stack([one.grad for one in some]), self.momenta[shape]
            momentum.lerp_(slope, 1 - MOMENTUM)
            update = orthogonal(slope.lerp_(momentum, MOMENTUM))
            torch._foreach_mul_(some, 1 - rate * DECAY)
            size = 0.2 * max(shape) ** 0.5
            torch._foreach_add_(some, list(update.to(some[0].dtype).unbind()), alpha=-rate * size)

    def state_dict(self) -> dict[str, Any]:
        return {"momenta": list(self.momenta.values())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for own, kept in zip(self.momenta.values(), state["momenta"], strict=True):
            own.copy_(kept)


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (n, rows, columns) with the singular vectors of those given and singular values
    near 1: five steps of Newton and Schulz, in bfloat16 where the hardware computes it. A CPU
    without it is many times slower in bfloat16 than in float32."""
    a, b, c = TERMS
    on_cpu = matrices.device.type == "cpu"
    half = half_precision(matrices.device) if on_cpu else torch.bfloat16
    x = matrices.to(half or torch.float32)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class MuonAndAdamW:
    """Muon for the matrices of the blocks, AdamW for the rest, behind one interface."""

    def __init__(self, named: Iterable[tuple[str, torch.nn.Parameter]], rate: float) -> None:
        matrices, others = list[torch.nn.Parameter](), list[torch.nn.Parameter]()
        for name, value in named:
            if value.requires_grad:
                inner = "transformer_blocks" in name and value.ndim == 2 and ".norm1" not in name
                (matrices if inner else others).append(value)
        self.parts: tuple[Any, ...] = (
            Muon(matrices, rate),
            torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.99), weight_decay=DECAY, fused=True),
        )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {str(number): part.state_dict() for number, part in enumerate(self.parts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for number, part in enumerate(self.parts):
            part.load_state_dict(state[str(number)])
