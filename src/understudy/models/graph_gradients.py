"""A recorded call with gradients: one graph for the forward pass, one for the backward pass.

The backward pass reads what the forward pass left in memory that all graphs of a network share. It
is computed again first where another graph has run in between, so the order of calls is free.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from understudy.models.cuda_capture import Capturer
from understudy.models.tensor_tree import copied, copy_all


@dataclass
class Passes:
    """How many graphs of a network have run."""

    count: int = 0


@dataclass
class Differentiable:
    """A recorded forward and backward pass.

    inputs: the memory that is read. needed: numbers of those that need gradients. wanted: these,
    and weights, which are read where they are. gradient: the memory of the output's gradient.
    found: gradients of the wanted ones; None = the output does not depend on it.
    """

    inputs: list[Tensor]
    needed: tuple[int, ...]
    wanted: tuple[Tensor, ...]
    output: Tensor
    gradient: Tensor
    found: list[Tensor | None]
    forward: Callable[[], None]
    backward: Callable[[], None]
    passes: Passes = field(repr=False)

    @classmethod
    def of(
        cls,
        capturer: Capturer,
        once: Callable[[], Any],
        held: list[Tensor],
        needed: tuple[int, ...],
        wanted: tuple[Tensor, ...],
        passes: Passes,
    ) -> Differentiable:
        """Record both passes of once(), which reads `held`. Raises RuntimeError."""
        device = wanted[0].device
        pending = list[Tensor]()  # the output with its history, from forward to backward pass
        given = list[Tensor]()

        def forward() -> Tensor:
            with torch.enable_grad():
                pending[:] = [once()]
            return pending[0].detach()

        def backward() -> list[Tensor | None]:
            output = [pending.pop()]
            with torch.autocast(device.type, enabled=False):
                return list(torch.autograd.grad(output, wanted, given, allow_unused=True))

        def both() -> None:
            given[:] = [torch.zeros_like(forward())]
            backward()

        capturer.warmed(both, device)
        gradient = torch.zeros_like(given[0])
        given[:] = [gradient]
        play_forward, output = capturer.captured(forward, device)
        play_backward, found = capturer.captured(backward, device)
        plays = play_forward, play_backward
        return cls(held, needed, wanted, output, gradient, found, *plays, passes)

    def __call__(self, tensors: Sequence[Tensor]) -> Tensor:
        weights = self.wanted[len(self.needed) :]
        return _Replayed.apply(self, *tensors, *weights)  # pyright: ignore[reportReturnType]

    def run_forward(self, tensors: Sequence[Tensor]) -> int:
        """Compute the output of these; returns the number of the pass."""
        copy_all(self.inputs, tensors)
        self.forward()
        self.passes.count += 1
        return self.passes.count

    def run_backward(
        self, number: int, tensors: Sequence[Tensor], gradient: Tensor
    ) -> list[Tensor | None]:
        """Gradients of the wanted tensors, after the forward pass of this number."""
        if number != self.passes.count:
            self.run_forward(tensors)
        copy_all([self.gradient], [gradient])
        self.backward()
        self.passes.count += 1  # the backward pass has overwritten what it read
        return copied(self.found)


class _Replayed(torch.autograd.Function):
    """The recorded call as a step of autograd."""

    @staticmethod
    def forward(ctx: Any, graph: Differentiable, *tensors: Tensor) -> Tensor:
        ctx.graph, ctx.number = graph, graph.run_forward(tensors[: len(graph.inputs)])
        ctx.save_for_backward(*tensors)
        return graph.output.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore
        graph: Differentiable = ctx.graph
        tensors = ctx.saved_tensors[: len(graph.inputs)]
        found = graph.run_backward(ctx.number, tensors, gradients[0])
        by_number = dict(zip(graph.needed, found[: len(graph.needed)], strict=True))
        of_inputs = (by_number.get(number) for number in range(len(graph.inputs)))
        return None, *of_inputs, *found[len(graph.needed) :]
