"""Routes of jobs and their events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from understudy.studio import forms, verbs
from understudy.studio.database import plain
from understudy.studio.json_route import JsonRoute
from understudy.studio.store import ENDED, RUNNING
from understudy.studio.studio import Studio

router = APIRouter(prefix="/api", tags=["jobs"], route_class=JsonRoute)
ALIVE = 15.0  # seconds between two signs of life of a stream
Scalar = bool | int | float | str


class Wish(BaseModel):
    """What a page asks for: a verb with settings by group, inputs (ids of files, names of
    concepts), and a seed where the verb has one. What is left out takes its default."""

    model_config = ConfigDict(extra="forbid")
    verb: str
    settings: dict[str, dict[str, Scalar]] = Field(default_factory=dict)
    inputs: dict[str, Any] = Field(default_factory=dict)
    seed: int | None = None


def studio(request: Request) -> Studio:
    """The studio of a request."""
    found: Studio = request.app.state.studio
    return found


@router.get("/verbs", tags=["forms"])
def list_verbs(
    request: Request, model: str = "", generator: str = "", preset: str = "", method: str = ""
) -> dict[str, Any]:
    """Every verb with its settings and inputs; values resolved for a model, preset and method.

    A preset or method counts for the verbs that have it.
    """
    found: dict[str, Any] = {}
    for one in verbs.VERBS.values():
        found[one.name] = _form(studio(request), one, model, generator, preset, method)
    return {"verbs": found}


@router.get("/verbs/{verb}", tags=["forms"])
def show_verb(
    request: Request,
    verb: str,
    model: str = "",
    generator: str = "",
    preset: str = "",
    method: str = "",
) -> dict[str, Any]:
    """One verb with its settings and inputs, as in /api/verbs."""
    return _form(studio(request), verbs.verb(verb), model, generator, preset, method)


def _form(
    found: Studio, one: verbs.Verb, model: str, generator: str, preset: str, method: str
) -> dict[str, Any]:
    wanted = found.wishes.model(one, {"run": {"model": model}}, {"generator": generator or None})
    chosen = {k: v for k, v in (("preset", preset), ("method", method)) if v}
    given = {forms.main_group(one): forms.fitting(one, chosen)}
    if not one.generator and model:
        given["run"] = {"model": model}
    return forms.form(one, wanted, given)


@router.post("/jobs", status_code=201)
def add_job(request: Request, wish: Wish) -> dict[str, str]:
    """Queue a job; its id."""
    return {"id": studio(request).submit(wish.model_dump())}


@router.get("/jobs")
def list_jobs(
    request: Request,
    state: Annotated[list[str] | None, Query()] = None,
    after: int = 0,
    most: int = 100,
) -> dict[str, Any]:
    """Jobs, the newest first; those at work with their progress, without its preview.

    after: only those whose number is smaller.
    """
    found = studio(request)
    states = [part for one in state or [] for part in one.split(",") if part]
    jobs = found.jobs.list(states, after, most)
    for one in jobs:
        if one["state"] == RUNNING:
            told = found.jobs.progress(one["id"])
            one["progress"] = told and {k: v for k, v in told.items() if k != "preview"}
    return {"jobs": jobs, "counts": found.jobs.counts()}


@router.get("/jobs/{job}")
def show_job(request: Request, job: str) -> dict[str, Any]:
    """A job: its state, what was asked for, its last progress and preview, notes, its error or
    result. last_event: number of the last event that the answer holds."""
    found = studio(request).jobs
    events = found.events(job)  # first: what comes meanwhile is told by the events after the last
    body = found.get(job)
    notes = [plain(text)["text"] for _, kind, text in events if kind == "note"]
    last = events[-1][0] if events else 0
    told = {"progress": found.progress(job), "notes": notes, "last_event": last}
    return {**body, **told, "cancelling": found.asked_to_cancel(job)}


@router.get("/jobs/{job}/events")
async def follow_job(
    request: Request, job: str, last_event_id: Annotated[int, Header()] = 0, after: int = 0
) -> StreamingResponse:
    """Server-Sent Events of a job: state, note, progress, finished, cancelling, resumed, result;
    `end` is the last.

    Last-Event-ID, or after: only later events. All events are replayed from disk.
    """
    found = studio(request)
    found.jobs.get(job)
    events = _events(found, job, max(last_event_id, after))
    heads = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=heads)


async def _events(found: Studio, job: str, last: int) -> AsyncIterator[str]:
    yield "retry: 1000\n\n"
    while not found.bell.closed:
        rung = found.bell.rung
        try:
            ended = found.jobs.get(job)["state"] in ENDED
            rows = found.jobs.events(job, last)
        except LookupError:  # deleted meanwhile
            ended, rows = True, []
        for number, kind, body in rows:
            yield f"id: {number}\nevent: {kind}\ndata: {body}\n\n"
            last = number
        if ended:
            yield "event: end\ndata: {}\n\n"
            return
        if not rows:
            yield ": alive\n\n"
        await found.bell.wait(ALIVE, rung)


@router.post("/jobs/{job}/cancel")
def cancel_job(request: Request, job: str) -> dict[str, Any]:
    """Cancel a job: at once if it waits, else after its step."""
    studio(request).queue.cancel(job)
    return {"id": job, "state": studio(request).jobs.get(job)["state"]}


@router.post("/jobs/{job}/resume")
def resume_job(request: Request, job: str) -> dict[str, Any]:
    """Queue a failed or cancelled job again; it goes on from its checkpoint, if it has one."""
    found = studio(request)
    found.jobs.resume(job)
    found.queue.wake()
    return {"id": job, "state": found.jobs.get(job)["state"]}


@router.delete("/jobs/{job}", status_code=204)
def delete_job(request: Request, job: str) -> None:
    """Forget a job that has ended. Its results stay in the gallery."""
    studio(request).forget_job(job)
