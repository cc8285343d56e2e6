"""Routes of live drags: sessions, a WebSocket for commands and frames, films and results.

A frame is a binary message: four bytes with the length of the JSON before the JPEG file. Commands
and everything else are JSON text. See `drag_session.COMMANDS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field

from understudy.errors import InputError, UnderstudyError
from understudy.files.reading import parse_json
from understudy.settings.drag import DragSettings
from understudy.studio.drag_session import DragProcess, Listener, checked
from understudy.studio.files import public
from understudy.studio.json_route import JsonRoute
from understudy.studio.models import GENERATOR
from understudy.studio.routes_jobs import Scalar, studio
from understudy.studio.store import insert_file, new_id
from understudy.studio.studio import Studio

router = APIRouter(prefix="/api/drag/sessions", tags=["drag"], route_class=JsonRoute)
ANSWER = 300.0  # seconds that a film or a save may take
MAX_MESSAGE = 64_000  # bytes of a command


class Begin(BaseModel):
    """What a drag begins with: the picture of a seed, the latent of a projected photo, or a session
    that was saved with a result (of a projected photo with its latent).

    into: the photo that was projected; results are put back into it.
    """

    model_config = ConfigDict(extra="forbid")
    generator: str = "toybox-gan"
    seed: int | None = Field(default=None, ge=0, lt=2**32)
    latent: str | None = None
    session: str | None = None
    into: str | None = None
    settings: dict[str, Scalar] = Field(default_factory=dict)


class Film(BaseModel):
    """A film of a drag. marks: whether handles and targets are drawn."""

    model_config = ConfigDict(extra="forbid")
    marks: bool = True
    format: Literal["gif", "mp4"] = "gif"


class Save(BaseModel):
    """How the picture of a drag is marked: the settings `mark` of the job."""

    model_config = ConfigDict(extra="forbid")
    mark: dict[str, Scalar] = Field(default_factory=dict)


@router.post("", status_code=201)
def begin(request: Request, asked: Begin) -> dict[str, Any]:
    """Begin a session; its id. The picture comes over the WebSocket."""
    found = studio(request)
    opening = _opening(found, asked)  # or an error now
    DragSettings.filled(asked.settings, str(opening["generator"]))
    one = new_id()
    with found.database.change() as line:
        row = (one, time.time(), asked.model_dump_json())
        line.execute("INSERT INTO drags (id, created, body) VALUES (?, ?, ?)", row)
    return {"id": one}


@router.get("/{session}")
def show(request: Request, session: str) -> dict[str, Any]:
    """What a session began with."""
    return {"id": session, **_body(studio(request), session).model_dump()}


@router.delete("/{session}", status_code=204)
def end(request: Request, session: str) -> None:
    """Forget a session. Results stay in the gallery."""
    found = studio(request)
    _body(found, session)
    process(found).send(session, {"do": "close"})
    with found.database.change() as line:
        line.execute("DELETE FROM drags WHERE id = ?", (session,))


@router.post("/{session}/film", status_code=201)
async def film(request: Request, session: str, asked: Film) -> dict[str, Any]:
    """Write the drag up to the moment shown as a film; the file."""
    found = studio(request)
    path = _place(found, session, f"drag.{asked.format}")
    await _answered(found, session, {"do": "film", "path": str(path), "marks": asked.marks})
    return await asyncio.to_thread(_kept, found, path)


@router.post("/{session}/save", status_code=201)
async def save(request: Request, session: str, asked: Save | None = None) -> dict[str, str]:
    """Queue a job that writes the picture of the moment shown with its recipe; the job's id."""
    found = studio(request)
    body = _body(found, session)
    mark = asked.mark if asked else {}
    path = _place(found, session, "drag.safetensors")
    await _answered(found, session, {"do": "save", "path": str(path)})
    file = await asyncio.to_thread(_kept, found, path)
    inputs = {"generator": body.generator, "session": file["id"]}
    inputs |= {"latent": body.latent, "into": body.into}
    wish = {"verb": "drag", "settings": {"drag": {}, "mark": mark}, "inputs": inputs}
    return {"id": await asyncio.to_thread(found.submit, wish)}


@router.websocket("/{session}")
async def live(socket: WebSocket, session: str) -> None:
    """Commands in, frames out, until either side ends.

    `?acknowledge=1`: the page sends {"do": "drawn"} for every frame it has drawn or dropped, and at
    most two are sent ahead of that. Without it frames are sent as fast as the connection takes
    them.
    """
    found: Studio = socket.app.state.studio
    await socket.accept()
    try:
        opening = _opening(found, await asyncio.to_thread(_body, found, session))
    except (LookupError, UnderstudyError) as error:
        await socket.send_json({"event": "gone", "message": str(error.args[0])})
        return await socket.close()
    acknowledges = socket.query_params.get("acknowledge") == "1"
    listener = process(found).listen(session, acknowledges)
    sender = asyncio.create_task(_send(socket, listener))
    try:
        await asyncio.to_thread(process(found).send, session, opening)
        while True:
            await _take(found, socket, listener, session, await socket.receive_text())
    except WebSocketDisconnect:
        pass
    finally:
        sender.cancel()
        process(found).leave(session, listener)


def process(found: Studio) -> DragProcess:
    """The drag process of a studio."""
    return found.drags


async def _send(socket: WebSocket, listener: Listener) -> None:
    """News to the page, until it is gone."""
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):
        while True:
            for one in await listener.next():
                await (socket.send_text(one) if isinstance(one, str) else socket.send_bytes(one))


async def _take(
    found: Studio, socket: WebSocket, listener: Listener, session: str, text: str
) -> None:
    """One command of a page; a wrong one is answered with one line."""
    number = 0
    try:
        command: Any = parse_json(text, "This command", most=MAX_MESSAGE)
        if isinstance(command, dict):
            number = command.get("re", 0)
            if command.get("do") == "drawn":
                return listener.drawn()
        mask = isinstance(command, dict) and command.get("do") == "mask"
        told = _mask(found, command) if mask else checked(command)
        await asyncio.to_thread(process(found).send, session, told)
    except (UnderstudyError, LookupError) as error:
        line = {"event": "error", "re": number, "message": str(error.args[0])}
        await socket.send_json(line)


def _mask(found: Studio, command: dict[str, Any]) -> dict[str, Any]:
    """The command of a mask: an uploaded file, or none."""
    told = checked({**command, "do": "look"})
    file = command.get("file")
    path = "" if file is None else str(found.files.path(found.files.get(str(file))))
    return {**told, "do": "mask", "path": path, "file": file}


def _opening(found: Studio, body: Begin) -> dict[str, Any]:
    """The command that opens a session. Raises InputError, LookupError."""
    if (body.seed is None) == (body.latent is None and body.session is None):
        raise InputError("Give a seed, the latent of a projected photo, or a saved session.")
    opening: dict[str, Any] = {"do": "open", "seed": body.seed or 0, "settings": body.settings}
    opening["generator"] = found.models.wanted(body.generator, GENERATOR)
    if body.latent is not None:
        opening["latent"] = str(found.files.path(found.files.get(body.latent)))
    if body.session is not None:
        opening["saved"] = str(found.files.path(found.files.get(body.session)))
    if body.into is not None:
        found.files.get(body.into)
    return opening


def _body(found: Studio, session: str) -> Begin:
    """What a session began with. Raises LookupError."""
    row = found.database.one("SELECT body FROM drags WHERE id = ?", (session,))
    if row is None:
        raise LookupError("There is no such drag. Start a new one.")
    return Begin.model_validate_json(row["body"])


def _place(found: Studio, session: str, name: str) -> Path:
    """A new place for a file of a session."""
    _body(found, session)
    folder = found.config.data / "drags" / session / new_id()
    folder.mkdir(parents=True)
    return folder / name


def _kept(found: Studio, path: Path) -> dict[str, Any]:
    """A file of the drag process in the table of files."""
    row = {**found.files.result(path), "kind": "data"}
    with found.database.change() as line:
        insert_file(line, row)
    return public(found.files.get(row["id"]))


async def _answered(found: Studio, session: str, command: dict[str, Any]) -> None:
    """Send a command and wait until it is done. Raises InputError with the line of its error."""
    mine = -(time.time_ns() % 2**52)  # below 0: pages number their own commands from 1
    listener = process(found).listen(session)
    try:
        await asyncio.to_thread(process(found).send, session, {**command, "re": mine})
        async with asyncio.timeout(ANSWER):
            while True:
                for one in await listener.next():
                    told = json.loads(one) if isinstance(one, str) else {}
                    if told.get("event") == "died" or told.get("re") == mine:
                        if told["event"] in ("error", "died"):
                            raise InputError(told["message"])
                        return
    finally:
        process(found).leave(session, listener)
