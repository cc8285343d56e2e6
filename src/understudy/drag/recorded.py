"""Steps of a drag as CUDA graphs: recorded once, then replayed by one launch.

A step launches some hundred small kernels. A GPU computes them sooner than Python can launch them,
so that it mostly waits. A CUDA graph keeps kernels with the addresses they read and write; a replay
launches all of them at once. New values are copied to those addresses before, results are copied
from them behind, so that nothing outside holds memory that the next replay changes.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor

In = TypeVar("In")
Out = TypeVar("Out")

# Steps of a kind that run as they are before it is recorded. They fill the caches that a recording
# must find filled, and a drag of few steps is not worth a recording, which takes as long as three.
EAGER = 2
WARM_UPS = 2  # on a side stream before a recording, as PyTorch asks for
# Recordings kept: a step and one that searches wider. Each holds the memory of one step (features
# and what their gradients need) and a copy of what the step reads, until another takes its place.
MOST = 2


@runtime_checkable
class Capturer(Protocol):
    """Records a function of tensors.

    inputs: a dataclass with tensors, whose memory the function reads in every replay. The result
    runs the function again on what that memory holds then, and gives outputs in memory that the
    next replay changes. Raises RuntimeError for a function that cannot be recorded.
    """

    def capture(self, function: Callable[[In], Out], inputs: In) -> Callable[[], Out]: ...


class CudaCapturer:
    """Implements `Capturer` by torch.cuda.CUDAGraph, each graph with memory of its own."""

    def capture(self, function: Callable[[In], Out], inputs: In) -> Callable[[], Out]:
        with torch.cuda.device(tensors(inputs)[0].device):
            here, side = torch.cuda.current_stream(), torch.cuda.Stream()
            # Libraries set themselves up at their first calls, which must not be recorded.
            side.wait_stream(here)
            with torch.cuda.stream(side):
                for _ in range(WARM_UPS):
                    function(inputs)
            here.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # The outer block restores the stream where ending a failed recording raises. Other
            # threads may go on using the GPU: "thread_local" judges the calls of this one only.
            with (
                torch.cuda.stream(here),
                torch.cuda.graph(graph, capture_error_mode="thread_local"),
            ):
                outputs = function(inputs)

        def replay() -> Out:
            graph.replay()
            return outputs

        return replay


@dataclass(frozen=True, eq=False)
class _Recording:
    """fixed: tensors in the order of the inputs', at the addresses that were recorded. given: those
    whose values they hold."""

    replay: Callable[[], Any]
    fixed: list[Tensor]
    given: list[Tensor]

    def run(self, inputs: Any) -> Any:
        for index, now in enumerate(tensors(inputs)):
            # Values never change, so the same tensor need not be copied again: features of an
            # anchor stay for a whole drag.
            if now is not self.given[index]:
                self.fixed[index].copy_(now)
                self.given[index] = now
        return mapped(self.replay(), torch.clone)


class Recordings:
    """The recordings of one function; it runs as it is from the first failure on.

    failure: why it could not be recorded, one line, or "". replays: calls that were replayed. kept:
    the recordings, that of the last call last.
    """

    def __init__(self, capturer: Capturer) -> None:
        self.capturer, self.failure, self.replays = capturer, "", 0
        self._seen = Counter[Hashable]()
        self.kept = OrderedDict[Hashable, _Recording]()

    def run(self, kind: Hashable, function: Callable[[In], Out], inputs: In) -> Out:
        """function(inputs), up to rounding.

        kind: all that the function depends on beside the tensors of the inputs. Functions of one
        kind must do the same.
        """
        key = (kind, tuple((one.shape, one.dtype) for one in tensors(inputs)))
        recording = None if self.failure else self._of(key, function, inputs)
        if recording is None:
            return function(inputs)
        self.replays += 1
        return recording.run(inputs)

    def _of(self, key: Hashable, function: Callable[[Any], Any], inputs: Any) -> _Recording | None:
        """The recording of a key, made now if it was met often enough; None: run it as it is."""
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        self._seen[key] += 1
        if self._seen[key] <= EAGER:
            return None
        while len(self.kept) >= MOST:
            old, _ = self.kept.popitem(last=False)
            self._seen[old] = 0
        own = mapped(inputs, lambda one: one.detach().clone())
        try:
            replay = self.capturer.capture(function, own)
        except RuntimeError as error:  # such as a wait for the GPU, or want of memory
            self.failure = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            return None
        self.kept[key] = _Recording(replay, tensors(own), tensors(inputs))
        return self.kept[key]


def tensors(value: object) -> list[Tensor]:
    """The tensors in a dataclass and in those inside it, in the order of the fields."""
    if isinstance(value, Tensor):
        return [value]
    if not is_dataclass(value):
        return []
    return [one for part in fields(value) for one in tensors(getattr(value, part.name))]


def mapped(value: Out, change: Callable[[Tensor], Tensor]) -> Out:
    """The same dataclass with its tensors changed."""
    if isinstance(value, Tensor):
        return cast(Any, change(value))
    if not is_dataclass(value):
        return value
    parts = {part.name: mapped(getattr(value, part.name), change) for part in fields(value)}
    return cast(Any, type(value))(**parts)
