"""What a command shows: progress with the time left on stderr, results on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from understudy.cli import signals
from understudy.cli.signals import Stopped
from understudy.errors import one_line, printable
from understudy.jobs.events import Event, Note, Progress, Result, Step
from understudy.jobs.request import Job

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_SECONDS = 5.0  # between two progress lines when stderr is not a terminal


S = TypeVar("S", bound=Step)
Kept = Callable[[Progress | None], str]


def follow(
    steps: Iterable[S], title: str | Callable[[S], str], kept: str | Callable[[], str] = ""
) -> Iterator[S]:
    """Pass steps on and show progress on stderr; one line with the time taken at the end.

    kept: what a stop leaves behind and how to go on, as a sentence or a function that says it. A
    KeyboardInterrupt during a step becomes `Stopped` with this sentence.

    A terminal gets a bar with the time left. Anything else (a log file, a pipe) gets a plain line
    at most every PLAIN_SECONDS. A title that is a function of the step starts a new phase whenever
    it changes.
    """
    from rich.console import Console

    console = Console(stderr=True)
    started = time.perf_counter()
    shown = one_line(title) if isinstance(title, str) else ""
    try:
        for step, words in (_bars if console.is_terminal else _lines)(console, steps, title):
            shown = words
            yield step
    except KeyboardInterrupt as stop:
        if not kept:
            raise
        raise Stopped(kept if isinstance(kept, str) else kept()) from stop
    taken = f"{shown} took {time.perf_counter() - started:.1f} s"
    console.print(taken, highlight=False, markup=False, soft_wrap=True)


def _bars(
    console: Console, steps: Iterable[S], title: str | Callable[[S], str]
) -> Iterator[tuple[S, str]]:
    """Each step with its title, drawing a bar with the time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    words, bar = "", None
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    left = TimeLeft(elapsed_when_finished=True)
    with Progress(*columns, left, console=console, transient=True) as progress:
        for step in steps:
            shown = _words(title, step)
            if bar is None or shown != words:
                if bar is not None:
                    progress.remove_task(bar)
                bar, words = progress.add_task(shown, total=step.total), shown
            progress.update(bar, advance=1, total=step.total)
            yield step, shown


def _lines(
    console: Console, steps: Iterable[S], title: str | Callable[[S], str]
) -> Iterator[tuple[S, str]]:
    """Each step with its title, printing a plain line at most every PLAIN_SECONDS."""
    printed = began = time.monotonic()
    before: tuple[int, int] | None = None  # index and total of the step before this one
    made, last_seen = 0, began
    for step in steps:
        shown = _words(title, step)
        now = time.monotonic()
        # Another total or a smaller index is another phase. The title is no sign of one: it may
        # hold the loss. The time before the first step of a phase belongs to that step.
        if before is not None and (step.total != before[1] or step.index < before[0]):
            began, made = last_seen, 0
        made += 1
        if now - printed >= PLAIN_SECONDS:
            done = min(step.index + 1, step.total)
            left = (now - began) / made * (step.total - done)
            line = f"{shown}: step {done} of {step.total}, about {left:.0f} s left"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
            printed = now
        before, last_seen = (step.index, step.total), now
        yield step, shown


def _words(title: str | Callable[[S], str], step: S) -> str:
    """The title of a step on one printable line: it may hold names that come from files."""
    return one_line(title if isinstance(title, str) else title(step))


def last(
    steps: Iterable[S], title: str | Callable[[S], str], kept: str | Callable[[], str] = ""
) -> S:
    """Follow steps to the end and return the last one; see `follow`."""
    return deque(follow(steps, title, kept), maxlen=1).pop()


def job(wish: Job, as_json: bool, *, finish_step: bool = False, kept: Kept | None = None) -> Result:
    """Run a job, show its progress and notes on stderr, and its result on stdout.

    finish_step: Ctrl-C and SIGTERM let the step at hand finish, so that the job can keep it.
    kept: says what a stop has left behind, given the last progress (None: there was none); without
    it, what the job's progress says. A result without values is of a process that does not report.
    """
    from understudy.jobs.runner import run

    events = run(wish)
    # Closed whatever happens: a traceback would keep the job, and its signal handlers, alive.
    with closing(finishing_steps(events) if finish_step else events) as steps:
        outcome = drawn(steps, kept)
    if outcome.values:
        result(outcome.values, as_json, *outcome.lines)
    return outcome


def finishing_steps(events: Iterator[Event]) -> Generator[Event]:
    """The events of a job; from its first step on a signal is answered between two steps."""
    for event in events:
        yield event
        if isinstance(event, Progress):
            break
    with signals.deferred() as asked:
        yield from signals.until(events, asked)


def drawn(events: Iterator[Event], kept: Kept | None = None) -> Result:
    """Draw a job's progress and print its notes; returns its result. Ctrl-C raises `Stopped`."""
    last: Progress | None = None
    ends = list[Result]()

    def seen() -> Iterator[Event]:
        nonlocal last
        for event in events:
            last = event if isinstance(event, Progress) else last
            yield event

    try:
        for event in (every := seen()):
            if isinstance(event, Result):
                return event
            if isinstance(event, Note):
                note(event.text)
            elif isinstance(event, Progress):
                deque(follow(_phase(event, every, ends), attrgetter("phase")), maxlen=0)
                if ends:  # a phase may end with the job
                    return ends[0]
    except KeyboardInterrupt as stop:
        noted = " ".join(getattr(stop, "__notes__", ["" if last is None else last.kept]))
        raise Stopped(noted if kept is None else kept(last)) from stop
    raise AssertionError("a job ends with its result")


def _phase(first: Progress, events: Iterator[Event], ends: list[Result]) -> Iterator[Progress]:
    """The progress of one phase; notes in between are printed, a result goes to `ends`."""
    yield first
    for event in events:
        if isinstance(event, Progress):
            yield event
        elif isinstance(event, Note):
            note(event.text)
        else:
            ends += [event] if isinstance(event, Result) else []
            return


def note(*lines: str) -> None:
    """Things worth knowing, on stderr."""
    for line in lines:
        print(printable(f"note: {line}"), file=sys.stderr)


def replaced(file: Path) -> None:
    """Say so where a file is there already that will be written."""
    if file.is_file():
        note(f"{file} exists and will be replaced")


def result(numbers: dict[str, Any], as_json: bool, *lines: str) -> None:
    """The outcome on stdout: one JSON object for machines, or lines for people."""
    if as_json:
        print(printable(json.dumps(numbers, ensure_ascii=False)))
    else:
        for line in lines:
            print(printable(line))
