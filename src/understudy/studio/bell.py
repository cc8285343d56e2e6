"""Wakes coroutines when a thread reports new events."""

from __future__ import annotations

import asyncio
import threading


class Bell:
    """Rung by any thread when the store has changed; waited for by coroutines of any loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self.closed = False
        self.rung = 0  # how often; what a listener must read before it looks at the store

    def ring(self) -> None:
        """Wake everybody who waits now."""
        with self._lock:
            self.rung += 1
            for loop, event in self._waiting:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(event.set)

    def close(self) -> None:
        """Wake everybody for the last time: the server ends."""
        self.closed = True
        self.ring()

    async def wait(self, seconds: float, since: int) -> None:
        """Return when the bell has rung more than `since` times, or after `seconds`.

        What is stored between a look at the store and this call has rung already.
        """
        one = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiting.add(one)
        try:
            if not self.closed and self.rung == since:
                await asyncio.wait_for(one[1].wait(), seconds)
        except TimeoutError:
            pass
        finally:
            with self._lock:
                self._waiting.discard(one)
