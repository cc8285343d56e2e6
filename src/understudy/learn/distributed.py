"""Training with several processes: ranks, gradient sums, barriers. Equivalent to one process
with the same total batch.

Started by `torchrun` or `accelerate launch`, which say so in the environment. All processes draw
the same rows and each computes its share, so that gradients and losses are those of one process;
only the first writes. This module does not know what is learnt.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
PATIENCE = timedelta(hours=2)  # while the first process saves or draws previews


@dataclass(frozen=True)
class Distributed:
    """This process is number `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Each tensor becomes the sum of those of all processes, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def gather(self, value: dict[int, Tensor]) -> dict[int, Tensor]:
        """The union of the dictionaries of all processes; tensors on the CPU."""
        if self.size == 1:
            return value
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, value)
        return {key: tensor for part in parts for key, tensor in part.items()}

    def agree(self, value: T) -> T:
        """The first process's value, for all."""
        if self.size == 1:
            return value
        said: list[Any] = [value]
        # Each process might find other files in the cache; the first one decides for all.
        dist.broadcast_object_list(said)
        return said[0]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def process_group() -> Generator[Distributed]:
    """The processes that the environment names, connected inside the block; otherwise this one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size < 2 or dist.is_initialized():
        yield (
            Distributed(dist.get_rank(), dist.get_world_size())
            if dist.is_initialized()
            else Distributed()
        )
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # Numbers and file lists are exchanged on the CPU, gradients on the GPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield Distributed(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
