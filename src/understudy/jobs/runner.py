"""Runs a job in this process: events as they come, the result last. Closing it cancels the job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from understudy.errors import InputError
from understudy.jobs.events import Event, Events, Result
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
        "project",
        "drag",
        "learn",
        "rerun",
    )
}
VERBS["demo"] = "understudy.demo_job"  # which is read after evaluate, as it scores its pictures


def verb_function(verb: str) -> Callable[..., Events[Result]]:
    """The function that runs a verb. Raises InputError for an unknown one."""
    if verb not in VERBS:
        raise InputError(f"verb must be one of {', '.join(VERBS)}. Got {verb!r}.")
    function: Any = getattr(import_module(VERBS[verb]), verb.replace(" ", "_"))
    return function


def run(job: Job, pool: Pool | None = None) -> Iterator[Event]:
    """Do a job. Raises what the verb raises; notes made before that are reported first.

    pool: models that are loaded already, and where this job's stays; None keeps nothing.
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
            yield event
            if isinstance(event, Result):
                return
    except Exception:
        yield from work.reported()
        raise
    finally:
        events.close()
