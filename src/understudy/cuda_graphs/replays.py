"""Recorded calls, which replace the calls themselves as long as they agree with them.

A call is recorded when its kind comes again. What it reads is copied into the memory that the graph
reads, and what it gives is copied out, so that a graph may run again at any time. A replay that
fails, or that gives something else than the call, turns all of them off: calls then run as they
are, and `failure` says why.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from understudy.cuda_graphs.agreement import tolerance
from understudy.cuda_graphs.capture import Capturer
from understudy.cuda_graphs.proof import Proof
from understudy.cuda_graphs.tensor_tree import alike, copied, copy_all, rebuilt, tensors_of

Run = Callable[[Any], Any]


@dataclass(frozen=True)
class Call:
    """A call that can be recorded.

    key: what decides which graph it is. run: computes with the tensors of `inputs` and changes
    nothing else. tensors: those of the inputs, each once. half: the dtype of autocast; None = it is
    off.
    """

    key: Hashable
    run: Run
    inputs: Any
    tensors: list[Tensor]
    device: torch.device
    half: torch.dtype | None = None

    def with_tensors(self, others: list[Tensor]) -> Any:
        """What the call gives with other tensors, under the same autocast."""
        # Weights that autocast has cast before would be read where they were then.
        with autocasting(self.device, self.half):
            return self.run(rebuilt(self.inputs, self.tensors, others))

    def allowed(self, outputs: list[Tensor]) -> float:
        """How far a replay's outputs may be from the call's, as a share of the largest value."""
        return tolerance([self.half, *(one.dtype for one in (*self.tensors, *outputs))])


def autocasting(device: torch.device, half: torch.dtype | None) -> AbstractContextManager[Any]:
    """Autocast that casts weights anew in every call, or none."""
    if half is None:
        return nullcontext()
    return torch.autocast(device.type, half, cache_enabled=False)


@dataclass
class Recording:
    """A recorded call: the memory that it reads, what computes it, what it gives."""

    inputs: list[Tensor]
    replay: Callable[[], None]
    outputs: Any

    @classmethod
    @torch.no_grad()
    def of(cls, capturer: Capturer, call: Call) -> Recording:
        """Record a call. Raises RuntimeError."""
        held = alike(call.tensors, call.device)
        copy_all(held, call.tensors)

        def once() -> Any:
            return call.with_tensors(held)

        capturer.warmed(once, call.device)
        return cls(held, *capturer.captured(once, call.device))

    def __call__(self, tensors: list[Tensor]) -> Any:
        copy_all(self.inputs, tensors)
        self.replay()
        return copied(self.outputs)


@dataclass
class Entry:
    """A recording and what it has shown."""

    recording: Any
    proof: Proof = field(default_factory=Proof)


class Replays:
    """Recordings by the kind of the call.

    most: how many are kept; the one that was not used for longest goes first. eager: calls of a
    kind that run as they are before one is recorded. failure: why nothing is replayed any more, one
    line, or "". replays: calls that were replayed, those included that were `compared`. passes:
    graphs that have run, in all.
    """

    def __init__(self, capturer: Capturer, most: int, eager: int) -> None:
        self.capturer, self.most, self.eager = capturer, most, eager
        self.failure, self.replays, self.compared, self.passes = "", 0, 0, 0
        # Threads share the memory that graphs read; a backward pass has a thread of its own.
        self.lock = threading.RLock()
        self._recorded: OrderedDict[Hashable, Entry] = OrderedDict()
        self._seen: OrderedDict[Hashable, int] = OrderedDict()

    def __len__(self) -> int:
        """Graphs that are held; one with gradients counts once."""
        return len(self._recorded)

    def __bool__(self) -> bool:
        """Always: an empty one may have a failure to tell."""
        return True

    def result(self, call: Call) -> Any:
        """What the call gives, without gradients."""
        with self.lock:
            entry = self.entry(call, lambda: Recording.of(self.capturer, call))
            done = entry and self._replayed(entry, call)
        return call.run(call.inputs) if done is None else done[0]

    def entry(self, call: Call, record: Callable[[], Any]) -> Entry | None:
        """The recording of a call, made now where that is due; None: the call runs as it is."""
        if self.failure:
            return None
        found = self._recorded.get(call.key)
        if found is None and self._is_due(call):
            while len(self._recorded) >= self.most:
                dropped, _ = self._recorded.popitem(last=False)
                self._seen.pop(dropped, None)
            if not self._recorded:
                self.capturer.forget()
            try:
                found = self._recorded[call.key] = Entry(record())
            except RuntimeError as error:  # such as a wait for the GPU, or want of memory
                self.fail(error)
        if found is not None:
            self._recorded.move_to_end(call.key)
        return found

    def fail(self, why: str | RuntimeError) -> None:
        """Turn everything off, for a reason; the first one stays."""
        lines = str(why).strip().splitlines() or [type(why).__name__]
        with self.lock:
            self.failure = self.failure or lines[0][:200]
            self.forget()

    def forget(self) -> None:
        """Let go of all graphs and of their memory."""
        self._recorded.clear()
        self._seen.clear()
        self.capturer.forget()

    def _replayed(self, entry: Entry, call: Call) -> tuple[Any] | None:
        """What the call gives; None where its replay, or what compares it, fails."""
        due = entry.proof.is_due(call.tensors)
        try:
            self.replays += 1
            self.passes += 1
            made = entry.recording(call.tensors)
            if not due:
                return (made,)
            self.compared += 1
            right = call.run(call.inputs)
            given, wanted = tensors_of(made), tensors_of(right)
            fault = entry.proof.fault(given, wanted, call.allowed(wanted))
        except RuntimeError as error:
            self.fail(error)
            return None
        if fault:
            self.fail(fault)
        else:
            entry.proof.agreed(given)
        return (right,)

    def _is_due(self, call: Call) -> bool:
        """Whether this kind of call came often enough, and there is room for its graph."""
        count = self._seen.get(call.key, 0)
        if count < self.eager:
            self._seen[call.key] = count + 1
            if len(self._seen) > 8 * self.most:
                self._seen.popitem(last=False)
            return False
        return self.capturer.has_room(call.device)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype of autocast; None = it is off."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return None


def chosen_kernels() -> tuple[object, ...]:
    """PyTorch's switches that decide which kernels compute a call."""
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    return (
        cuda.matmul.allow_tf32,
        cuda.matmul.allow_fp16_reduced_precision_reduction,
        cuda.matmul.allow_bf16_reduced_precision_reduction,
        cudnn.allow_tf32,
        cudnn.enabled,
        cudnn.benchmark,
        cudnn.deterministic,
        torch.are_deterministic_algorithms_enabled(),
        cuda.flash_sdp_enabled(),
        cuda.mem_efficient_sdp_enabled(),
        cuda.math_sdp_enabled(),
        cuda.cudnn_sdp_enabled(),
    )
