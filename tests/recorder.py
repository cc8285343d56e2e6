"""A stand-in for what records CUDA graphs: "replaying" computes again on the same memory.

What a graph gave is spoilt before each replay, so that nothing of an earlier call is taken for it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from torch import Tensor

from understudy.cuda_graphs.capture import is_watched
from understudy.cuda_graphs.tensor_tree import copy_all, tensors_of


class Recorder:
    """See `cuda_graphs/capture.py`, class Capturer. room: whether there is memory for more."""

    def __init__(self, room: bool = True) -> None:
        self.room, self.captures, self.forgotten = room, 0, 0

    def runs_on(self, device: torch.device) -> bool:
        return device.type == "cpu" and not is_watched()

    def has_room(self, device: torch.device) -> bool:
        return self.room

    def warmed(self, run: Callable[[], Any], device: torch.device) -> None:
        run()

    def captured(
        self, run: Callable[[], Any], device: torch.device
    ) -> tuple[Callable[[], None], Any]:
        self.captures += 1
        outputs = run()
        memory = tensors_of(outputs)

        def replay() -> None:
            for one in memory:
                one.detach().fill_(7)
            copy_all(memory, tensors_of(run()))

        return replay, outputs

    def forget(self) -> None:
        self.forgotten += 1


class Refusing(Recorder):
    """Fails while it records."""

    def captured(
        self, run: Callable[[], Any], device: torch.device
    ) -> tuple[Callable[[], None], Any]:
        run()
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors")


class Faulty(Recorder):
    """Records, and then does wrong.

    fault: "stale" = a replay computes what was recorded, whatever its inputs are; "aliased" =
    outputs of one shape share memory; "wrong", "nan" = one value is; "raises" = the replay fails.
    first: the number of the replay, from 0, where it begins. which: of the graphs that are
    recorded, from 0; None = all.
    """

    def __init__(self, fault: str, first: int = 0, which: int | None = None) -> None:
        super().__init__()
        self.fault, self.first, self.which, self.faults = fault, first, which, 0

    def captured(
        self, run: Callable[[], Any], device: torch.device
    ) -> tuple[Callable[[], None], Any]:
        faulty = self.which in (None, self.captures)
        right, outputs = super().captured(run, device)
        memory = [one.detach() for one in tensors_of(outputs)]
        recorded = [one.clone() for one in memory]
        replays = count()

        def replay() -> None:
            if not faulty or next(replays) < self.first:
                return right()
            self.faults += 1
            if self.fault == "raises":
                raise RuntimeError("CUDA error: unspecified launch failure\nand more lines")
            right()
            self.spoil(memory, recorded)

        return replay, outputs

    @torch.no_grad()
    def spoil(self, memory: list[Tensor], recorded: list[Tensor]) -> None:
        if self.fault == "stale":
            copy_all(memory, recorded)
        elif self.fault == "aliased":
            last = {one.shape: one.clone() for one in memory}
            copy_all(memory, [last[one.shape] for one in memory])
        else:
            place = memory[0].view(-1)[:1]
            place.fill_(float("nan") if self.fault == "nan" else 2 * float(memory[0].abs().max()))
