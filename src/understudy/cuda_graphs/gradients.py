"""A recorded call with gradients: one graph for the forward pass, one for the backward pass.

The backward pass reads what the forward pass left in memory that all graphs of a network share. It
is computed again first where another graph has run in between, so the order of calls is free.

A call that is compared gives what the call itself gives, output and gradients; what the graphs give
is looked at and dropped. So an optimiser sees one gradient, whatever was computed beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from understudy.cuda_graphs.proof import Proof
from understudy.cuda_graphs.replays import Call, Entry, Replays
from understudy.cuda_graphs.tensor_tree import alike, copied, copy_all

Found = list[Tensor | None]  # gradients; None = the output does not depend on it


@dataclass(frozen=True)
class Gradients:
    """What gradients are taken of. needed: numbers of the call's tensors. trained: weights."""

    needed: tuple[int, ...] = ()
    trained: tuple[nn.Parameter, ...] = ()


@dataclass
class Differentiable:
    """A recorded forward and backward pass.

    inputs: the memory that is read; weights are read where they are. gradient: the memory of the
    output's gradient. found: gradients of the wanted ones. owner: counts the passes of all graphs.
    """

    inputs: list[Tensor]
    output: Tensor
    gradient: Tensor
    found: Found
    forward: Callable[[], None]
    backward: Callable[[], None]
    owner: Replays

    @classmethod
    def of(cls, owner: Replays, call: Call, gradients: Gradients) -> Differentiable:
        """Record both passes of a call. Raises RuntimeError."""
        held, device = alike(call.tensors, call.device), call.device
        copy_all(held, call.tensors)
        needed = [held[number].requires_grad_() for number in gradients.needed]
        wanted = (*needed, *gradients.trained)
        pending = list[Tensor]()  # the output with its history, from forward to backward pass
        given = list[Tensor]()

        def forward() -> Tensor:
            with torch.enable_grad():
                pending[:] = [call.with_tensors(held)]
            return pending[0].detach()

        def backward() -> Found:
            return taken(pending.pop(), wanted, given[0])

        def both() -> None:
            given[:] = [torch.zeros_like(forward())]
            backward()

        owner.capturer.warmed(both, device)
        gradient = torch.zeros_like(given[0])
        given[:] = [gradient]
        play_forward, output = owner.capturer.captured(forward, device)
        play_backward, found = owner.capturer.captured(backward, device)
        return cls(held, output, gradient, found, play_forward, play_backward, owner)

    def run_forward(self, tensors: Sequence[Tensor]) -> int:
        """Compute the output of these; returns the number of the pass."""
        copy_all(self.inputs, tensors)
        self.forward()
        self.owner.passes += 1
        return self.owner.passes

    def run_backward(self, number: int, tensors: Sequence[Tensor], gradient: Tensor) -> Found:
        """Gradients of the wanted tensors, after the forward pass of this number. They are in
        memory that the next pass changes."""
        if number != self.owner.passes:
            self.run_forward(tensors)
        copy_all([self.gradient], [gradient])
        self.backward()
        self.owner.passes += 1  # the backward pass has overwritten what it read
        return self.found


def taken(output: Tensor, wanted: Sequence[Tensor], gradient: Tensor) -> Found:
    """Gradients of the wanted tensors, for that of the output."""
    with torch.autocast(output.device.type, enabled=False):
        return list(torch.autograd.grad([output], wanted, [gradient], allow_unused=True))


def replayed(owner: Replays, entry: Entry, call: Call, gradients: Gradients) -> Tensor:
    """The output of a call by its graph, as a step of autograd."""
    due = entry.proof.is_due(call.tensors)
    use = _Use(owner, entry.recording, entry.proof, call, gradients, due)
    found: Any = _Replayed.apply(use, *call.tensors, *gradients.trained)
    return found


@dataclass
class _Use:
    """One call, from its forward to its backward pass.

    graph: None = it failed. due: whether it is compared. number: of its forward pass. pending: the
    output of the call itself, and what its gradients are taken of.
    """

    owner: Replays
    graph: Differentiable | None
    proof: Proof
    call: Call
    gradients: Gradients
    due: bool
    number: int = 0
    pending: tuple[Tensor, list[Tensor]] | None = None

    def forward(self, tensors: Sequence[Tensor]) -> Tensor:
        """The output: of the graph, or of the call itself where the graph is compared or failed."""
        self.owner.replays += 1
        made = self._guarded(lambda graph: self._made(graph, tensors))
        if made is not None and not self.due:
            return made
        right = self._itself(tensors)
        if made is not None:
            self.owner.compared += 1
            self._compared([made], [right])
        return right.detach()

    def backward(self, tensors: Sequence[Tensor], gradient: Tensor) -> Found:
        """The gradients, likewise."""
        if not self.due:
            found = self._guarded(
                lambda graph: copied(graph.run_backward(self.number, tensors, gradient))
            )
            if found is not None:
                return found
        self._pending(tensors)
        assert self.pending is not None
        (output, wanted), self.pending = self.pending, None
        right = taken(output, wanted, gradient)
        del output
        if self.due:
            self._guarded(lambda graph: self._compare(graph, tensors, gradient, right))
            self.due = False
        return right

    def _made(self, graph: Differentiable, tensors: Sequence[Tensor]) -> Tensor:
        self.number = graph.run_forward(tensors)
        return graph.output.clone()

    def _compare(
        self, graph: Differentiable, tensors: Sequence[Tensor], gradient: Tensor, right: Found
    ) -> bool:
        """Look at the graph's gradients beside the right ones."""
        made = graph.run_backward(self.number, tensors, gradient)
        if [one is None for one in made] != [one is None for one in right]:
            self._failed("a replayed CUDA graph gave gradients of other tensors")
        elif self._compared(*([one for one in some if one is not None] for some in (made, right))):
            self.proof.agreed()
        return True

    def _compared(self, made: list[Tensor], right: list[Tensor]) -> bool:
        """Whether they agree; if not, all graphs are turned off."""
        try:
            fault = self.proof.fault(made, right, self.call.allowed(right))
        except RuntimeError as error:  # want of memory
            fault = str(error)
        if fault:
            self._failed(fault)
        return not fault

    def _guarded(self, use: Callable[[Differentiable], Any]) -> Any:
        """What the graph gives; None where it fails or is turned off."""
        with self.owner.lock:
            if self.graph is None or self.owner.failure:
                self.graph = None
                return None
            try:
                return use(self.graph)
            except RuntimeError as error:
                self._failed(error)
                return None

    def _failed(self, why: str | RuntimeError) -> None:
        self.graph = None
        self.owner.fail(why)

    def _itself(self, tensors: Sequence[Tensor]) -> Tensor:
        """The output of the call itself; once more without the graphs where memory runs out."""
        if self.graph is not None:
            try:
                return self._pending(tensors)
            except torch.OutOfMemoryError as error:
                self._failed(error)
        return self._pending(tensors)

    def _pending(self, tensors: Sequence[Tensor]) -> Tensor:
        """Compute the call itself, with what its gradients need, unless that was done."""
        if self.pending is None:
            leaves = [one.detach() for one in tensors]
            needed = [leaves[number].requires_grad_() for number in self.gradients.needed]
            with torch.enable_grad():
                output = self.call.with_tensors(leaves)
            self.pending = output, [*needed, *self.gradients.trained]
        return self.pending[0]


class _Replayed(torch.autograd.Function):
    """The recorded call as a step of autograd."""

    @staticmethod
    def forward(ctx: Any, use: _Use, *tensors: Tensor) -> Tensor:
        ctx.use = use
        ctx.save_for_backward(*tensors)
        return use.forward(tensors[: len(use.call.tensors)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore
        use: _Use = ctx.use
        count, needed = len(use.call.tensors), use.gradients.needed
        found = use.backward(ctx.saved_tensors[:count], gradients[0])
        by_number = dict(zip(needed, found[: len(needed)], strict=True))
        return None, *(by_number.get(number) for number in range(count)), *found[len(needed) :]
