"""Calls of a network recorded as CUDA graphs, and replayed with other values.

A small network on a GPU waits for its kernels to be launched one by one; a graph is launched at
once. A call is recorded when its kind comes for the second time: the same shapes, dtypes and
structure of all that the call reads, the same weights at the same places in memory, the same
choices of kernels. What a call reads is copied into the memory that the graph reads, and what it
gives is copied out of the graph's memory, so a graph may run again at any time.

Outside autograd, or with gradients to what the call reads; never with gradients of weights. What
cannot be recorded runs as it is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from understudy.models.cuda_capture import Capturer, CUDACapture
from understudy.models.graph_gradients import Differentiable, Passes
from understudy.models.tensor_tree import (
    OpaqueError,
    alike,
    copied,
    copy_all,
    rebuilt,
    structure,
)

MOST = 24  # graphs of one network; the one that was not used for longest goes first

Run = Callable[[Any], Any]


@dataclass
class Recording:
    """A recorded call: the memory that it reads, what computes it, what it gives."""

    inputs: list[Tensor]
    replay: Callable[[], None]
    outputs: Any

    def __call__(self, tensors: list[Tensor]) -> Any:
        copy_all(self.inputs, tensors)
        self.replay()
        return copied(self.outputs)


class Graphs:
    """The graphs of a network.

    failure: why nothing is recorded any more, one line, or "". replays: calls that were replayed.
    """

    without = "without CUDA graphs"

    def __init__(
        self, network: nn.Module, capturer: Capturer | None = None, most: int = MOST
    ) -> None:
        self.network, self.most = network, most
        self.capturer: Capturer = CUDACapture() if capturer is None else capturer
        self.failure, self.replays = "", 0
        self._recorded: OrderedDict[Hashable, Recording | Differentiable] = OrderedDict()
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._weights: dict[tuple[int, ...], int] = {}
        self._passes = Passes()

    def __len__(self) -> int:
        """Graphs that are held; one with gradients counts once."""
        return len(self._recorded)

    def __call__(self, run: Run, inputs: Any, kind: Hashable = None) -> Any:
        """What run(inputs) gives: a tree of tensors (see `tensor_tree`).

        run: computes with tensors of `inputs` and with the network, and changes nothing else.
        With gradients it gives one tensor. kind: whatever else decides what run computes.
        """
        found = None if self.failure else self._key(inputs, kind)
        if found is None:
            return run(inputs)
        key, tensors, needed = found
        recorded = self._recorded.get(key)
        if recorded is None and self._is_due(key):
            recorded = self._record(key, run, inputs, tensors, needed)
        if recorded is None:
            return run(inputs)
        self._recorded.move_to_end(key)
        self.replays += 1
        self._passes.count += 1
        return recorded(tensors)

    def forget(self) -> None:
        """Let go of all graphs and of their memory."""
        self._recorded.clear()
        self._seen.clear()
        self._weights.clear()
        self.capturer.forget()

    def _key(
        self, inputs: Any, kind: Hashable
    ) -> tuple[Hashable, list[Tensor], tuple[int, ...]] | None:
        """What decides which graph a call is, its tensors, and the numbers of those that need
        gradients; None where the call runs as it is."""
        device = next(self.network.parameters()).device
        if not self.capturer.runs_on(device):
            return None
        # A mode that looks at every operator, such as a counter, sees none in a replay.
        watched = torch._C._len_torch_dispatch_stack()  # pyright: ignore
        if watched or torch.is_autocast_enabled(device.type) or torch.is_inference_mode_enabled():
            return None
        weights, tensors = weights_of(self.network), list[Tensor]()
        if weights is None:
            return None
        try:
            shape = structure(inputs, tensors)
        except OpaqueError:
            return None
        needed = tuple[int, ...]()
        if torch.is_grad_enabled():
            if not weights.frozen:
                return None
            needed = tuple(n for n, one in enumerate(tensors) if one.requires_grad)
        if len(self._weights) > self.most:  # concepts that come and go
            self.forget()
        weights_number = self._weights.setdefault(weights.places, len(self._weights))
        return (shape, kind, weights_number, needed, chosen_kernels()), tensors, needed

    def _is_due(self, key: Hashable) -> bool:
        """Whether this kind of call came before, and there is room for its graph."""
        if key not in self._seen:
            self._seen[key] = None
            if len(self._seen) > 8 * self.most:
                self._seen.popitem(last=False)
            return False
        return self.capturer.has_room(next(self.network.parameters()).device)

    def _record(
        self, key: Hashable, run: Run, inputs: Any, tensors: list[Tensor], needed: tuple[int, ...]
    ) -> Recording | Differentiable | None:
        """Record the call; None where that fails, and from then on."""
        if len(self._recorded) >= self.most:
            dropped, _ = self._recorded.popitem(last=False)
            self._seen.pop(dropped, None)
        if not self._recorded:
            self.capturer.forget()
        device = next(self.network.parameters()).device
        held = alike(tensors, device)
        copy_all(held, tensors)
        mirrored = rebuilt(inputs, tensors, held)
        try:
            if needed:
                passes = self._passes
                made = Differentiable.of(self.capturer, run, mirrored, held, needed, passes)
            else:
                made = _recording(self.capturer, run, mirrored, held, device)
        except RuntimeError as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self.failure = reason[:200]
            self.forget()
            return None
        self._recorded[key] = made
        return made


@torch.no_grad()
def _recording(
    capturer: Capturer, run: Run, mirrored: Any, held: list[Tensor], device: torch.device
) -> Recording:
    def once() -> Any:
        return run(mirrored)

    capturer.warmed(once, device)
    replay, outputs = capturer.captured(once, device)
    return Recording(held, replay, outputs)


@dataclass(frozen=True)
class Weights:
    """Where a network's weights are in memory, and which modules it has.

    frozen: whether no weight needs a gradient, and no activation is computed again for gradients.
    """

    places: tuple[int, ...]
    frozen: bool


def weights_of(network: nn.Module) -> Weights | None:
    """What a graph of the network depends on; None where a module trains or has hooks.

    Weights that are changed in place stay where they are, and a graph reads what is there.
    """
    places, frozen, left = list[int](), True, [network]
    while left:
        # Several hundred modules before every call: attribute look-ups of nn.Module would take
        # three times as long.
        module = left.pop().__dict__
        if module["training"] or module["_forward_hooks"] or module["_forward_pre_hooks"]:
            return None
        places += (id(module), id(module.get("processor")))
        frozen = frozen and not module.get("gradient_checkpointing")
        for parameter in module["_parameters"].values():
            if parameter is not None:
                places.append(parameter.data_ptr())
                frozen = frozen and not parameter.requires_grad
        places += [one.data_ptr() for one in module["_buffers"].values() if one is not None]
        left += [one for one in module["_modules"].values() if one is not None]
    return Weights(tuple(places), frozen)


def chosen_kernels() -> tuple[bool, ...]:
    """PyTorch's switches that decide which kernels compute a call."""
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    return (
        cuda.matmul.allow_tf32,
        cudnn.allow_tf32,
        cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
        cuda.flash_sdp_enabled(),
        cuda.mem_efficient_sdp_enabled(),
        cuda.math_sdp_enabled(),
        cuda.cudnn_sdp_enabled(),
    )


@runtime_checkable
class Graphable(Protocol):
    """A model whose network's calls can be recorded."""

    def graph(self, on: bool = True, *, capturer: Capturer | None = None) -> Graphs | None:
        """Record and replay the network's calls from now on, or run them as they are (None)."""
        ...
