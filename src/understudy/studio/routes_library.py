"""Routes of concepts, models, examples, preferences and checks of photos."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from understudy._version import __version__
from understudy.errors import InputError, ModelError
from understudy.files.reading import read_json
from understudy.models.registry import here
from understudy.preflight import preflight
from understudy.studio.database import plain
from understudy.studio.json_route import JsonRoute
from understudy.studio.models import MODEL, checked
from understudy.studio.routes_jobs import studio

router = APIRouter(prefix="/api", route_class=JsonRoute)
EXAMPLES = Path(__file__).parent / "static" / "examples" / "examples.json"
MAX_PREFERENCES = 64_000  # bytes of one preference as JSON


@router.get("/version")
def version(request: Request) -> dict[str, Any]:
    """The version, and what this server is."""
    found = studio(request)
    counts = found.jobs.counts()
    body = {"name": "understudy", "version": __version__, "local": found.config.local}
    return {**body, "token": bool(found.config.token), "jobs": counts}


@router.get("/concepts", tags=["concepts"])
def list_concepts(request: Request) -> dict[str, Any]:
    """The concepts that were learnt."""
    return {"concepts": studio(request).concepts.all()}


@router.get("/concepts/{name}", tags=["concepts"])
def show_concept(request: Request, name: str) -> dict[str, Any]:
    """A concept with its checkpoints and the curves of its run (loss, identity, ...)."""
    return studio(request).concepts.one(name)


@router.get("/concepts/{name}/previews/{step}", tags=["concepts"])
def show_preview(request: Request, name: str, step: int) -> Response:
    """The strip of previews that was drawn after a step."""
    file = studio(request).concepts.preview(name, step)
    return FileResponse(file, media_type="image/png")


@router.delete("/concepts/{name}", status_code=204, tags=["concepts"])
def delete_concept(request: Request, name: str) -> None:
    """Remove a concept with its checkpoints, previews and log."""
    studio(request).remove_concept(name)


@router.get("/models", tags=["models"])
def list_models(request: Request) -> dict[str, Any]:
    """Models and generators, checkpoint files that can be converted, and the disk used.

    folder: where models go, "" for pages of other machines, which learn nothing of this disk.
    """
    found = studio(request)
    folder = str(found.models.folders[0]) if found.config.local else ""
    files = [{"id": f.name, "bytes": f.stat().st_size} for f in found.models.files()]
    known = [one.to_dict() for one in found.models.all()]
    return {"models": known, "files": files, "used": found.files.used(), "folder": folder}


class Asked(BaseModel):
    """Whether a name is of a model or of a generator."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["model", "generator"] = "model"


@router.post("/models/{model:path}/check", tags=["models"])
def check_model(request: Request, model: str, asked: Asked) -> dict[str, Any]:
    """Whether a model is complete, in a process of its own; nothing is written or executed."""
    found = studio(request)
    ok, line = checked(found.models.wanted(model, asked.kind))
    return {"ok": ok, "message": found.queue.scrubbed(line)}


class Checkpoint(BaseModel):
    """A checkpoint file of the list of models."""

    model_config = ConfigDict(extra="forbid")
    file: str


@router.post("/models/convert", status_code=201, tags=["models"])
def convert_model(request: Request, asked: Checkpoint) -> dict[str, str]:
    """Queue the conversion of a checkpoint file in the studio's model folders; the job's id."""
    return {"id": studio(request).submit({"verb": "convert", "inputs": {"file": asked.file}})}


@router.get("/examples", tags=["concepts"])
def list_examples() -> dict[str, Any]:
    """Subjects and photos of the toy world to start from; their files are under /examples/."""
    if not EXAMPLES.is_file():
        return {"subjects": [], "photos": []}
    found: dict[str, Any] = read_json(EXAMPLES)
    return found


class Photos(BaseModel):
    """Photos to look over before learning."""

    model_config = ConfigDict(extra="forbid")
    photos: list[str] = Field(min_length=1, max_length=64)
    model: str = "toybox"
    method: str = "dreambooth"


@router.post("/preflight", tags=["concepts"])
def check_photos(request: Request, asked: Photos) -> dict[str, Any]:
    """Report of photos, one entry per photo, in the order given; nothing is learnt."""
    found = studio(request)
    wanted = found.models.wanted(asked.model, MODEL)
    rows = [found.files.get(one) for one in asked.photos]
    try:
        folder = here(wanted)
    except ModelError:
        folder = None
    with tempfile.TemporaryDirectory(dir=found.config.data) as place:
        names = [file.name for file in found.files.stage(rows, Path(place) / "photos")]
        trains_all = asked.method == "dreambooth"
        store = found.concepts.store
        report = preflight(Path(place) / "photos", model=folder, trains_all=trains_all, out=store)
    body = report.to_dict()
    body.pop("folder")
    by_name = {finding["file"]: finding for finding in body.pop("photos")}
    photos = [{"id": one, **by_name[name]} for one, name in zip(asked.photos, names, strict=True)]
    return {**body, "photos": photos}


@router.get("/settings", tags=["settings"])
def show_settings(request: Request) -> dict[str, Any]:
    """Preferences of the pages, as they were stored."""
    rows = studio(request).database.all("SELECT name, value FROM preferences ORDER BY name")
    return {row["name"]: plain(row["value"]) for row in rows}


@router.put("/settings", tags=["settings"])
def store_settings(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Store preferences; those that are not named stay, null removes one."""
    if len(values) > 100 or any(not name.isidentifier() for name in values):
        raise InputError("Preferences are at most 100 names of letters, digits and _.")
    texts = {name: json.dumps(value) for name, value in values.items()}
    if any(len(text) > MAX_PREFERENCES for text in texts.values()):
        raise InputError(f"A preference may have {MAX_PREFERENCES} bytes of JSON.")
    with studio(request).database.change() as line:
        for name, text in texts.items():
            line.execute("DELETE FROM preferences WHERE name = ?", (name,))
            if text != "null":
                line.execute("INSERT INTO preferences VALUES (?, ?)", (name, text))
    return show_settings(request)
