"""What a command shows: bars with the time left on stderr, results on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar, runtime_checkable


@runtime_checkable
class Step(Protocol):
    """Anything that knows where it stands: `index` of `total`."""

    @property
    def index(self) -> int: ...
    @property
    def total(self) -> int: ...


S = TypeVar("S", bound=Step)


def follow(steps: Iterable[S], title: str | Callable[[S], str]) -> Iterator[S]:
    """Pass steps on, drawing a bar with the time left; one line with the time taken at the end.

    A title that is a function of the step draws a new bar whenever it changes.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    console = Console(stderr=True)
    started = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    left = TimeLeft(elapsed_when_finished=True)
    shown, words, bar = title if isinstance(title, str) else "", "", None
    quiet = not console.is_terminal
    with Progress(*columns, left, console=console, transient=True, disable=quiet) as progress:
        for step in steps:
            shown = title if isinstance(title, str) else title(step)
            if bar is None or shown != words:
                if bar is not None:
                    progress.remove_task(bar)
                bar, words = progress.add_task(shown, total=step.total), shown
            progress.update(bar, advance=1, total=step.total)
            yield step
    console.print(f"{shown} took {time.perf_counter() - started:.1f} s", highlight=False)


def last(steps: Iterable[S], title: str | Callable[[S], str]) -> S:
    """Follow steps to the end and return the last one."""
    return deque(follow(steps, title), maxlen=1).pop()


def note(*lines: str) -> None:
    """Things worth knowing, on stderr."""
    for line in lines:
        print(f"note: {line}", file=sys.stderr)


def result(numbers: dict[str, Any], as_json: bool, *lines: str) -> None:
    """The outcome on stdout: one JSON object for machines, or lines for people."""
    if as_json:
        print(json.dumps(numbers, ensure_ascii=False))
    else:
        for line in lines:
            print(line)
