"""What a running job reports: notes, progress, finished phases, one result. JSON in and out.

Verbs are generators of events. `watched` turns the steps of an engine into progress and hands back
the last step. Free of torch.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from understudy.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Note:
    """One line worth knowing."""

    text: str


@dataclass(frozen=True)
class Progress:
    """Step `index` of `total` of a phase, counted as the engine counts.

    phase: what is being done, for people; it may change from step to step (a loss). seconds_left:
    for this phase, None before the second step. preview: a JPEG in base64 of what the step has come
    to, "" for none. kept: what a stop now leaves behind and how to go on, as a sentence; "" for
    nothing. draw: makes the picture "k 3 h w" of a preview; it stays in the process of the job.
    """

    phase: str
    index: int
    total: int
    seconds_left: float | None = None
    preview: str = ""
    kept: str = ""
    draw: Callable[[], Tensor] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Finished:
    """A phase has ended."""

    phase: str
    seconds: float


@dataclass(frozen=True)
class Result:
    """The last event of a job.

    values: JSON data. lines: the same for people. files: what was written.
    """

    values: dict[str, Any]
    lines: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


Event = Note | Progress | Finished | Result
KINDS: dict[str, type[Event]] = {
    "note": Note,
    "progress": Progress,
    "finished": Finished,
    "result": Result,
}
T = TypeVar("T")
Events = Generator[Event, None, T]


def to_dict(event: Event) -> dict[str, Any]:
    """An event as plain JSON data."""
    (kind,) = (name for name, known in KINDS.items() if isinstance(event, known))
    values = {one.name: getattr(event, one.name) for one in dataclasses.fields(event)}
    values.pop("draw", None)
    return {"event": kind, **values}


def from_dict(data: dict[str, Any]) -> Event:
    """The reverse of `to_dict`. Raises InputError for anything else."""
    values = dict(data)
    kind = KINDS.get(str(values.pop("event", "")))
    if kind is None:
        raise InputError(f"event must be one of {', '.join(KINDS)}. Got {data.get('event')!r}.")
    for name in ("lines", "files"):
        if name in values:
            values[name] = tuple(values[name])
    try:
        return kind(**values)
    except TypeError as problem:
        raise InputError(f"This {data['event']} event is not valid: {problem}.") from None


@runtime_checkable
class Step(Protocol):
    """Anything that knows where it stands: `index` of `total`."""

    @property
    def index(self) -> int: ...
    @property
    def total(self) -> int: ...


S = TypeVar("S", bound=Step)


def watched(
    steps: Iterable[S],
    title: str | Callable[[S], str],
    each: Callable[[S], None] = lambda step: None,
    *,
    kept: Callable[[], str] = str,
    picture: Callable[[S], Tensor] | None = None,
) -> Events[S]:
    """Progress of steps, then `Finished`; returns the last step. Closing it closes the steps.

    each: is called with every step. kept: says what a stop during these steps leaves behind; it
    is in their progress, and the note of a KeyboardInterrupt. picture: of a step, for a
    preview; it is called only where somebody wants one.
    """
    began = previous = time.monotonic()
    phase, made, before, step = "", 0, None, None
    try:
        for step in steps:
            each(step)
            phase = title if isinstance(title, str) else title(step)
            # Another total or a smaller index is another phase of the same engine.
            if before is not None and (step.total != before[1] or step.index < before[0]):
                began, made = previous, 0
            made, before, previous = made + 1, (step.index, step.total), time.monotonic()
            remaining = max(step.total - min(step.index + 1, step.total), 0)
            left = (previous - began) / made * remaining if made > 1 else None
            draw = None if picture is None else partial(picture, step)
            yield Progress(phase, step.index, step.total, left, kept=kept(), draw=draw)
    except KeyboardInterrupt as stop:
        stop.add_note(kept())
        raise
    finally:
        close = getattr(steps, "close", None)
        if close is not None:
            close()
    assert step is not None, "an engine makes at least one step"
    yield Finished(phase, time.monotonic() - began)
    return step


def completed(events: Events[T]) -> T:
    """Run to the end without showing anything, and return what comes of it."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value
