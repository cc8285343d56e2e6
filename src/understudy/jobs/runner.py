"""Runs a job in this process: events as they come, the result last. Closing it cancels the job."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from typing import Any

from understudy.errors import InputError
from understudy.jobs.events import Event, Events, Progress, Result
from understudy.jobs.pool import Pool
from understudy.jobs.request import Job, bound, path_inputs
from understudy.jobs.work import Work

# verb -> module of its function, which has the verb's name; imported when it is first run.
VERBS = {
    verb: f"understudy.jobs.{verb}"
    for verb in (
        "swap",
        "sweep",
        "explain",
        "edit",
        "generate",
        "invert",
        "mask",
        "project",
        "drag",
        "learn",
        "rerun",
        "convert",
    )
}
# Read after everything that draws or learns: they alone know the network that scores.
for verb in ("swap", "dreambooth", "drag", "cases"):
    VERBS[f"evaluate {verb}"] = "understudy.evaluate_job"
VERBS["batch row"] = "understudy.batch.row"
VERBS["demo"] = "understudy.demo_job"  # it scores its pictures, too


def verb_function(verb: str) -> Callable[..., Events[Result]]:
    """The function that runs a verb. Raises InputError for an unknown one."""
    if verb not in VERBS:
        raise InputError(f"verb must be one of {', '.join(VERBS)}. Got {verb!r}.")
    function: Any = getattr(import_module(VERBS[verb]), verb.replace(" ", "_"))
    return function


def run(job: Job, pool: Pool | None = None, *, preview_every: int = 0) -> Generator[Event]:
    """Do a job. Raises what the verb raises; notes made before that are reported first.

    pool: models that are loaded already, and where this job's stays; None keeps nothing.
    preview_every: every so many steps the progress holds a preview; 0: none, at no cost.
    """
    function = verb_function(job.verb)
    work = Work(job, pool or Pool(), path_inputs(function))
    events = function(work, **bound(function, job))
    try:
        while True:
            try:
                event: Event = next(events)
            except StopIteration as end:
                event = end.value
            yield from work.reported()
            yield previewed(event, preview_every) if preview_every else event
            if isinstance(event, Result):
                return
    except Exception:
        yield from work.reported()
        raise
    finally:
        events.close()
        work.until_done.close()


def previewed(event: Event, every: int) -> Event:
    """The event with the preview of its step, if it is a step of which one is wanted.

    A preview that does not fit into memory is left out: it must not end the job.
    """
    if not isinstance(event, Progress) or event.draw is None:
        return event
    if (event.index + 1) % every and event.index + 1 != event.total:
        return replace(event, draw=None)
    from understudy.pictures.preview import preview

    shown = ""
    with suppress(RuntimeError, MemoryError):
        shown = preview(event.draw())
    return replace(event, preview=shown, draw=None)
