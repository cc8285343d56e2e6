"""A stand-in for what records CUDA graphs: "replaying" computes again on the same memory.

What a graph gave is spoilt before each replay, so that nothing of an earlier call is taken for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from understudy.models.tensor_tree import copy_all, tensors_of


class Recorder:
    """See `models/graphs.py`, class Capturer. room: whether there is memory for more."""

    def __init__(self, room: bool = True) -> None:
        self.room, self.captures, self.forgotten = room, 0, 0

    def runs_on(self, device: torch.device) -> bool:
        return device.type == "cpu"

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
