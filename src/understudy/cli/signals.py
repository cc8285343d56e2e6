"""Ctrl-C and SIGTERM: the message names what was kept; learning finishes its step first."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class Stopped(Exception):
    """A command was stopped by a signal. The message says what was kept and how to go on."""


@contextmanager
def deferred() -> Generator[Callable[[], bool]]:
    """Inside the block a first signal only makes the yielded function say True; a second one stops
    at once. The handlers there were are put back."""
    asked: list[int] = []

    def note(number: int, _: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def until(steps: Iterator[T], asked: Callable[[], bool]) -> Iterator[T]:
    """Pass steps on; once `asked`, close them, which keeps what they did, and raise
    KeyboardInterrupt."""
    try:
        for step in steps:
            yield step
            if asked():
                raise KeyboardInterrupt
    finally:
        close = getattr(steps, "close", None)
        if close is not None:
            close()
