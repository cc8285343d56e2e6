"""Calls of a network recorded as CUDA graphs, and replayed with other values.

A small network on a GPU waits for its kernels to be launched one by one; a graph is launched at
once. A call is recorded when its kind comes for the second time: the same shapes, dtypes and
structure of all that the call reads, the same weights at the same places in memory, the same
choices of kernels.

Outside autograd, or with gradients of what the call reads and of weights. What cannot be recorded
runs as it is.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from understudy.cuda_graphs.capture import Capturer, CUDACapture
from understudy.cuda_graphs.gradients import Differentiable, Gradients, replayed
from understudy.cuda_graphs.replays import (
    Call,
    Replays,
    Run,
    autocast_dtype,
    chosen_kernels,
)
from understudy.cuda_graphs.tensor_tree import OpaqueError, structure

MOST = 24  # graphs of one network; the one that was not used for longest goes first
EAGER = 1  # calls of a kind that run as they are


class Graphs(Replays):
    """The graphs of a network. See `Replays` for what they tell."""

    without = "without CUDA graphs"

    def __init__(
        self, network: nn.Module, capturer: Capturer | None = None, most: int = MOST
    ) -> None:
        super().__init__(CUDACapture() if capturer is None else capturer, most, EAGER)
        self.network = network
        self._weights: dict[tuple[int, ...], int] = {}

    def __call__(self, run: Run, inputs: Any, kind: Hashable = None) -> Any:
        """What run(inputs) gives: a tree of tensors (see `tensor_tree`).

        run: computes with tensors of `inputs` and with the network, and changes nothing else.
        With gradients it gives one tensor. kind: whatever else decides what run computes.
        """
        with self.lock:
            found = None if self.failure else self._call(run, inputs, kind)
        if found is None:
            return run(inputs)
        call, wanted = found
        if not (wanted.needed or wanted.trained):
            return self.result(call)
        with self.lock:
            entry = self.entry(call, lambda: Differentiable.of(self, call, wanted))
        return run(inputs) if entry is None else replayed(self, entry, call, wanted)

    def forget(self) -> None:
        """Let go of all graphs and of their memory."""
        super().forget()
        self._weights.clear()

    def _call(self, run: Run, inputs: Any, kind: Hashable) -> tuple[Call, Gradients] | None:
        """The call and the gradients it must have; None where it runs as it is."""
        device = next(self.network.parameters()).device
        if not self.capturer.runs_on(device):
            return None
        weights, tensors = weights_of(self.network), list[Tensor]()
        if weights is None:
            return None
        try:
            shape = structure(inputs, tensors)
        except OpaqueError:
            return None
        wanted = Gradients()
        if torch.is_grad_enabled():
            if weights.checkpointing:
                return None
            needed = (n for n, one in enumerate(tensors) if one.requires_grad)
            wanted = Gradients(tuple(needed), weights.trained)
        if len(self._weights) > self.most:  # concepts that come and go
            self.forget()
        weights_number = self._weights.setdefault(weights.places, len(self._weights))
        learnt, half = tuple(map(id, wanted.trained)), autocast_dtype(device)
        key = (shape, kind, weights_number, wanted.needed, learnt, half, chosen_kernels())
        return Call(key, run, inputs, tensors, device, half), wanted


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


@runtime_checkable
class Graphable(Protocol):
    """A model whose network's calls can be recorded."""

    def graph(self, on: bool = True, *, capturer: Capturer | None = None) -> Graphs | None:
        """Record and replay the network's calls from now on, or run them as they are (None)."""
        ...
