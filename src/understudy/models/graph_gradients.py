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

    inputs: the memory that is read. needed: numbers of those that need gradients. gradient: the
    memory of the output's gradient. found: gradients of the needed ones.
    """

    inputs: list[Tensor]
    needed: tuple[int, ...]
    output: Tensor
    gradient: Tensor
    found: list[Tensor]
    forward: Callable[[], None]
    backward: Callable[[], None]
    passes: Passes = field(repr=False)

    @classmethod
    def of(
        cls,
        capturer: Capturer,
        run: Callable[[Any], Any],
        mirrored: Any,
        held: list[Tensor],
        needed: tuple[int, ...],
        passes: Passes,
    ) -> Differentiable:
        """Record both passes of run(mirrored), whose tensors are `held`. Raises RuntimeError."""
        wanted = [held[number].requires_grad_() for number in needed]
        pending = list[Tensor]()  # the output with its history, from forward to backward pass
        given = list[Tensor]()

        def forward() -> Tensor:
            with torch.enable_grad():
                pending[:] = [run(mirrored)]
            return pending[0].detach()

        def backward() -> list[Tensor]:
            output = [pending.pop()]
            return list(torch.autograd.grad(output, wanted, given, materialize_grads=True))

        def both() -> None:
            given[:] = [torch.zeros_like(forward())]
            backward()

        device = held[needed[0]].device
        capturer.warmed(both, device)
        gradient = torch.zeros_like(given[0])
        given[:] = [gradient]
        play_forward, output = capturer.captured(forward, device)
        play_backward, found = capturer.captured(backward, device)
        return cls(held, needed, output, gradient, found, play_forward, play_backward, passes)

    def __call__(self, tensors: Sequence[Tensor]) -> Tensor:
        return _Replayed.apply(self, *tensors)  # pyright: ignore[reportReturnType]

    def run_forward(self, tensors: Sequence[Tensor]) -> int:
        """Compute the output of these; returns the number of the pass."""
        copy_all(self.inputs, tensors)
        self.forward()
        self.passes.count += 1
        return self.passes.count

    def run_backward(
        self, number: int, tensors: Sequence[Tensor], gradient: Tensor
    ) -> list[Tensor]:
        """Gradients of the needed tensors, after the forward pass of this number."""
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
        ctx.graph, ctx.number = graph, graph.run_forward(tensors)
        ctx.save_for_backward(*tensors)
        return graph.output.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore
        graph: Differentiable = ctx.graph
        found = graph.run_backward(ctx.number, ctx.saved_tensors, gradients[0])
        by_number = dict(zip(graph.needed, found, strict=True))
        return None, *(by_number.get(number) for number in range(len(graph.inputs)))
