"""Calls of a network recorded as CUDA graphs, and replayed with other values.

A small network on a GPU waits for its kernels to be launched one by one; a graph is launched at
once. A call is recorded when its kind comes for the second time: the same shapes, dtypes and
structure of all that the call reads, the same weights at the same places in memory, the same
choices of kernels. What a call reads is copied into the memory that the graph reads, and what it
gives is copied out of the graph's memory, so a graph may run again at any time.

Outside autograd, or with gradients of what the call reads and of weights. What cannot be recorded
runs as it is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
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
        recorded = self._recorded.get(found.key)
        if recorded is None and self._is_due(found.key):
            recorded = self._record(found, run, inputs)
        if recorded is None:
            return run(inputs)
        self._recorded.move_to_end(found.key)
        self.replays += 1
        self._passes.count += 1
        return recorded(found.tensors)

    def forget(self) -> None:
        """Let go of all graphs and of their memory."""
        self._recorded.clear()
        self._seen.clear()
        self._weights.clear()
        self.capturer.forget()

    def _key(self, inputs: Any, kind: Hashable) -> _Call | None:
        """What decides which graph a call is; None where the call runs as it is."""
        device = next(self.network.parameters()).device
        if not self.capturer.runs_on(device):
            return None
        # A mode that looks at every operator, such as a counter, sees none in a replay.
        watched = torch._C._len_torch_dispatch_stack()  # pyright: ignore
        if watched or torch.is_inference_mode_enabled():
            return None
        half = None
        if torch.is_autocast_enabled(device.type):
            half = torch.get_autocast_dtype(device.type)
        weights, tensors = weights_of(self.network), list[Tensor]()
        if weights is None:
            return None
        try:
            shape = structure(inputs, tensors)
        except OpaqueError:
            return None
        needed, trained = tuple[int, ...](), tuple[nn.Parameter, ...]()
        if torch.is_grad_enabled():
            if weights.checkpointing:
                return None
            needed = tuple(n for n, one in enumerate(tensors) if one.requires_grad)
            trained = weights.trained
        if len(self._weights) > self.most:  # concepts that come and go
            self.forget()
        weights_number = self._weights.setdefault(weights.places, len(self._weights))
        learnt = tuple(map(id, trained))
        key = (shape, kind, weights_number, needed, learnt, half, chosen_kernels())
        return _Call(key, tensors, needed, trained, device, half)

    def _is_due(self, key: Hashable) -> bool:
        """Whether this kind of call came before, and there is room for its graph."""
        if key not in self._seen:
            self._seen[key] = None
            if len(self._seen) > 8 * self.most:
                self._seen.popitem(last=False)
            return False
        return self.capturer.has_room(next(self.network.parameters()).device)

    def _record(self, call: _Call, run: Run, inputs: Any) -> Recording | Differentiable | None:
        """Record the call; None where that fails, and from then on."""
        if len(self._recorded) >= self.most:
            dropped, _ = self._recorded.popitem(last=False)
            self._seen.pop(dropped, None)
        if not self._recorded:
            self.capturer.forget()
        held = alike(call.tensors, call.device)
        copy_all(held, call.tensors)
        mirrored = rebuilt(inputs, call.tensors, held)

        def once() -> Any:
            # Weights that autocast has cast before would be read where they were then.
            with autocasting(call.device, call.half):
                return run(mirrored)

        try:
            if call.needed or call.trained:
                wanted = [held[number].requires_grad_() for number in call.needed]
                made = Differentiable.of(
                    self.capturer, once, held, call.needed, (*wanted, *call.trained), self._passes
                )
            else:
                made = _recording(self.capturer, once, held, call.device)
        except RuntimeError as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self.failure = reason[:200]
            self.forget()
            return None
        self._recorded[call.key] = made
        return made


@dataclass(frozen=True)
class _Call:
    """A call that can be recorded.

    key: what decides which graph it is. needed: numbers of the tensors that need gradients.
    trained: weights that need them. half: the dtype of autocast; None = it is off.
    """

    key: Hashable
    tensors: list[Tensor]
    needed: tuple[int, ...]
    trained: tuple[nn.Parameter, ...]
    device: torch.device
    half: torch.dtype | None


def autocasting(device: torch.device, half: torch.dtype | None) -> AbstractContextManager[Any]:
    """Autocast that casts weights anew in every call, or none."""
    if half is None:
        return nullcontext()
    return torch.autocast(device.type, half, cache_enabled=False)


@torch.no_grad()
def _recording(
    capturer: Capturer, once: Callable[[], Any], held: list[Tensor], device: torch.device
) -> Recording:
    capturer.warmed(once, device)
    replay, outputs = capturer.captured(once, device)
    return Recording(held, replay, outputs)


@dataclass(frozen=True)
class Weights:
    """Where a network's weights are in memory, and which modules it has.

    trained: those that need gradients. checkpointing: whether activations are computed again for
    gradients.
    """

    places: tuple[int, ...]
    trained: tuple[nn.Parameter, ...]
    checkpointing: bool


def weights_of(network: nn.Module) -> Weights | None:
    """What a graph of the network depends on; None where a module has hooks, or draws at random or
    gathers statistics as it trains.

    Weights that are changed in place stay where they are, and a graph reads what is there.
    """
    places, trained, left, checkpointing = list[int](), list[nn.Parameter](), [network], False
    while left:
        # Several hundred modules before every call: attribute look-ups of nn.Module would take
        # three times as long.
        module = left.pop().__dict__
        if module["_forward_hooks"] or module["_forward_pre_hooks"]:
            return None
        if module["training"] and (module.get("p") or "running_mean" in module["_buffers"]):
            return None  # dropout, batch normalisation
        places += (id(module), id(module.get("processor")))
        checkpointing = checkpointing or bool(module.get("gradient_checkpointing"))
        for parameter in module["_parameters"].values():
            if parameter is not None:
                places.append(parameter.data_ptr())
                if parameter.requires_grad:
                    trained.append(parameter)
        places += [one.data_ptr() for one in module["_buffers"].values() if one is not None]
        left += [one for one in module["_modules"].values() if one is not None]
    return Weights(tuple(places), tuple(trained), checkpointing)


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
