"""Steps of a drag as CUDA graphs: recorded once, then replayed by one launch.

A step launches some hundred small kernels. A GPU computes them sooner than Python can launch them,
so that it mostly waits. A CUDA graph keeps kernels with the addresses they read and write; a replay
launches all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor

from understudy.cuda_graphs.capture import Capturer
from understudy.cuda_graphs.replays import (
    Call,
    Replays,
    autocast_dtype,
    chosen_kernels,
)
from understudy.cuda_graphs.tensor_tree import OpaqueError, structure

Out = TypeVar("Out")

# Steps of a kind that run as they are before it is recorded. They fill the caches that a recording
# must find filled, and a drag of few steps is not worth a recording, which takes as long as three.
EAGER = 2
# Recordings kept: a step and one that searches wider. Each holds the memory of one step (features
# and what their gradients need) and a copy of what the step reads, until another takes its place.
MOST = 2


class Recordings(Replays):
    """The recordings of a drag's step. See `Replays` for what they tell.

    Their graphs must not share memory: a generator keeps the maps of its last walk.
    """

    def __init__(self, capturer: Capturer) -> None:
        super().__init__(capturer, MOST, EAGER)

    def run(self, kind: Hashable, function: Callable[[Any], Out], inputs: Any) -> Out:
        """function(inputs), up to rounding.

        kind: all that the function depends on beside the inputs. Functions of one kind must do the
        same.
        """
        call = None if self.failure else self._call(kind, function, inputs)
        return function(inputs) if call is None else self.result(call)

    def _call(self, kind: Hashable, function: Callable[[Any], Any], inputs: Any) -> Call | None:
        tensors = list[Tensor]()
        try:
            shape = structure(inputs, tensors)
        except OpaqueError:  # such as what a tracker of the user's keeps
            return None
        device = tensors[0].device
        if not self.capturer.runs_on(device):
            return None
        half = autocast_dtype(device)
        key = (kind, shape, half, torch.is_grad_enabled(), chosen_kernels())
        return Call(key, function, inputs, tensors, device, half)
