"""Numbers that host and device exchange without keeping each other waiting.

`item()` makes the host wait for everything that was launched before, and the device has nothing to
do until the host launches more. A `Reading` is copied to pinned memory as the device gets to it;
read a step later, it is there already. A copy to a GPU makes the host wait as well, for everything
that was launched, unless it is told not to (`sent`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def sent(values: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Values of the host on a device, and in a dtype; the host does not wait for the copy.

    The device's later work waits for it. Values that are there already are not copied.
    """
    # CUDA copies from memory that is not pinned by way of a buffer of its own, so `values` may
    # change or go at once. Other devices do not promise that.
    return values.to(device, dtype, non_blocking=device.type == "cuda")


def chosen(values: Tensor, rows: Sequence[int]) -> Tensor:
    """values[rows], without a list of indices that would be copied to the device: `values` itself
    or a part of it where the rows follow each other, else a copy."""
    rows = list(rows)
    first = rows[0] if rows else 0
    if rows == list(range(first, first + len(rows))):
        return values if len(rows) == len(values) else values[first : first + len(rows)]
    return torch.stack([values[row] for row in rows])


def put_rows(out: Tensor, rows: Sequence[int], columns: slice, values: Tensor) -> None:
    """out[rows, :, columns] = values, likewise."""
    if list(rows) == list(range(rows[0], rows[0] + len(rows))):
        out[rows[0] : rows[0] + len(rows), :, columns] = values
        return
    for row, value in zip(rows, values, strict=True):
        out[row, :, columns] = value


@lru_cache(maxsize=256)
def on_device(numbers: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Constants on a device, sent once: every layer of every step may ask for them."""
    return torch.tensor(numbers, device=device, dtype=dtype)


class Reading:
    """A number on its way from a device to the host.

    Args:
        number: a tensor of one element.
    """

    def __init__(self, number: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        self._host = number.detach()
        # Pinned memory and non_blocking let the copy run behind the kernels already queued.
        if number.device.type == "cuda":
            self._host = torch.empty_like(self._host, device="cpu", pin_memory=True)
            self._host.copy_(number.detach(), non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    @property
    def value(self) -> float:
        """The number; waits until it has arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
            self._arrived = None
        return self._host.item()


def reading_delay(device: torch.device) -> int:
    """How many steps later a loop should read a number: 1 on a GPU, 0 where nothing is queued."""
    return 1 if device.type == "cuda" else 0
