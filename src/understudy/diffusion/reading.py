"""Numbers that the host reads from a device without keeping the device waiting.

`item()` makes the host wait for everything that was launched before, and the device has nothing to
do until the host launches more. A `Reading` is copied to pinned memory as the device gets to it;
read a step later, it is there already.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
        return self._host.item()


def reading_delay(device: torch.device) -> int:
    """How many steps later a loop should read a number: 1 on a GPU, 0 where nothing is queued."""
    return 1 if device.type == "cuda" else 0
