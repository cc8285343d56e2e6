"""Records work of a CUDA device as graphs.

Work is run and recorded on a stream of its own, and replayed on the default stream. While it is
recorded, other threads go on using the device; two recordings never run at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch

# Share of the device's memory that must be free for another graph: graphs keep their memory, so the
# rest of the program would find less of it.
FREE = 0.5
SWITCH = "UNDERSTUDY_CUDA_GRAPHS"  # "0" in the environment: nothing is recorded
# Beginning to record waits for the whole device, which fails while another thread records.
RECORDING = threading.Lock()


@runtime_checkable
class Capturer(Protocol):
    """What records. `CUDACapture`; tests have one that computes again on the same memory."""

    def runs_on(self, device: torch.device) -> bool:
        """Whether work of this device can be recorded and replayed now."""
        ...

    def has_room(self, device: torch.device) -> bool:
        """Whether there is memory for one more graph."""
        ...

    def warmed(self, run: Callable[[], Any], device: torch.device) -> None:
        """Run where it will be recorded, so that nothing is made on first use later."""
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
    """Records CUDA graphs. Implements `Capturer`.

    shared: whether graphs share one pool of memory. That is safe where they run one after the
    other, what a graph gives is copied before another runs, and nothing else of it is read. Else
    each has its own.
    """

    def __init__(self, shared: bool = True) -> None:
        self.shared = shared
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any = None

    def runs_on(self, device: torch.device) -> bool:
        """Whether it is a CUDA device, on its default stream, under no mode that no replay serves,
        and graphs are not switched off.

        Work on another stream would not wait for what a graph does with its memory. The default
        stream is also never one that records.
        """
        if device.type != "cuda" or os.environ.get(SWITCH) == "0" or is_watched():
            return False
        return torch.cuda.current_stream(device) == torch.cuda.default_stream(device)

    def has_room(self, device: torch.device) -> bool:
        """Whether half of the device's memory is free, or cached by PyTorch."""
        free, total = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached >= FREE * total

    def warmed(self, run: Callable[[], Any], device: torch.device) -> None:
        """Run twice on the stream: libraries make their handles, work spaces and constants, and
        choose their kernels."""
        with torch.cuda.device(device), RECORDING:
            stream = self._beside(device)
            with torch.cuda.stream(stream):
                for _ in range(2):
                    run()
            torch.cuda.current_stream(device).wait_stream(stream)

    def captured(
        self, run: Callable[[], Any], device: torch.device
    ) -> tuple[Callable[[], None], Any]:
        """Record `run`: what launches it again, and what it returns. Raises RuntimeError."""
        with torch.cuda.device(device), RECORDING:
            graph, stream = torch.cuda.CUDAGraph(), self._beside(device)
            if self._pool is None or not self.shared:
                self._pool = torch.cuda.graph_pool_handle()
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
        if self._stream is None or self._stream.device != device:
            self._stream = torch.cuda.Stream(device)
        self._stream.wait_stream(torch.cuda.current_stream(device))
        return self._stream


def is_watched() -> bool:
    """Whether calls run under a mode that no replay serves."""
    # A mode that looks at every operator, such as a counter, sees none in a replay.
    modes = torch._C._len_torch_dispatch_stack()  # pyright: ignore
    return bool(modes) or torch.is_inference_mode_enabled()
