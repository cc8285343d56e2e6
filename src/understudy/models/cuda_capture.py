"""Records work of a CUDA device as graphs that share one pool of memory.

Sharing is safe because graphs run one after the other on one stream, and because what a graph gives
is copied before another runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch

# Share of the device's memory that must be free for another graph: graphs keep their memory, so the
# rest of the program would find less of it.
FREE = 0.5


@runtime_checkable
class Capturer(Protocol):
    """What records. `CUDACapture`; tests have one that computes again on the same memory."""

    def runs_on(self, device: torch.device) -> bool:
        """Whether work of this device can be recorded now."""
        ...

    def has_room(self, device: torch.device) -> bool:
        """Whether there is memory for one more graph."""
        ...

    def warmed(self, run: Callable[[], Any], device: torch.device) -> None:
        """Run once where it will be recorded, so that nothing is made on first use later."""
        ...

    def captured(
        self, run: Callable[[], Any], device: torch.device
    ) -> tuple[Callable[[], None], Any]:
        """Record `run`: what computes it again, and what it returns, in the same memory."""
        ...

    def forget(self) -> None:
        """All that was recorded is gone."""
        ...


class CUDACapture:
    """Records CUDA graphs. Work that is recorded runs on a stream of its own."""

    def __init__(self) -> None:
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any = None

    def runs_on(self, device: torch.device) -> bool:
        """Whether it is a CUDA device, and nobody else is recording."""
        return device.type == "cuda" and not torch.cuda.is_current_stream_capturing()

    def has_room(self, device: torch.device) -> bool:
        """Whether half of the device's memory is free, or cached by PyTorch."""
        free, total = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached >= FREE * total

    def warmed(self, run: Callable[[], Any], device: torch.device) -> None:
        """Run once on the stream: libraries make their handles, work spaces and constants."""
        stream = self._beside(device)
        with torch.cuda.stream(stream):
            run()
        torch.cuda.current_stream(device).wait_stream(stream)

    def captured(
        self, run: Callable[[], Any], device: torch.device
    ) -> tuple[Callable[[], None], Any]:
        """Record `run`: what launches it again, and what it returns. Raises RuntimeError."""
        graph, stream = torch.cuda.CUDAGraph(), self._beside(device)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        # The outer block puts the stream back where `graph` itself fails on its way out.
        with (
            torch.cuda.stream(stream),
            # Other threads go on using the device meanwhile: previews, a live drag.
            torch.cuda.graph(
                graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"
            ),
        ):
            outputs = run()
        torch.cuda.current_stream(device).wait_stream(stream)
        return graph.replay, outputs

    def forget(self) -> None:
        """Take another pool next time: PyTorch gives one up with its last graph."""
        self._pool = None

    def _beside(self, device: torch.device) -> torch.cuda.Stream:
        """The stream, which waits for what was launched before."""
        self._stream = self._stream or torch.cuda.Stream(device)
        self._stream.wait_stream(torch.cuda.current_stream(device))
        return self._stream
