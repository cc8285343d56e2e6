"""Routes of uploads, files, the gallery and recipes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, File, Request, UploadFile
from fastapi.responses import FileResponse, Response

from understudy.studio.files import public
from understudy.studio.json_route import JsonRoute
from understudy.studio.recipes import filled, recipe_of, uploaded
from understudy.studio.routes_jobs import studio

router = APIRouter(prefix="/api", tags=["files"], route_class=JsonRoute)
Upload = Annotated[UploadFile, File(description="A picture.")]
FOREVER = {"cache-control": "private, max-age=31536000, immutable"}


@router.post("/uploads", status_code=201)
def upload(request: Request, file: Upload) -> dict[str, Any]:
    """Keep a photo that passes the photo opener: JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, HEIF."""
    return public(studio(request).files.upload(file.filename or "photo", file.file))


@router.post("/masks", status_code=201)
def upload_mask(request: Request, file: Upload) -> dict[str, Any]:
    """Keep a mask: white where a picture may change."""
    return public(studio(request).files.upload(file.filename or "mask.png", file.file, "mask"))


@router.get("/files/{file}")
def show_file(request: Request, file: str, download: bool = False) -> Response:
    """A file at its full size. download: as an attachment, the bytes that are on disk."""
    files = studio(request).files
    row = files.get(file)
    path, kind = files.shown(row)
    if download:
        path = files.path(row)
        return FileResponse(path, filename=row["name"], media_type="application/octet-stream")
    return FileResponse(path, media_type=kind, headers=FOREVER)


@router.get("/files/{file}/thumb")
def show_thumb(request: Request, file: str) -> Response:
    """A small JPEG of a picture."""
    files = studio(request).files
    return FileResponse(files.thumb(files.get(file)), media_type="image/jpeg", headers=FOREVER)


@router.get("/files/{file}/info")
def show_info(request: Request, file: str) -> dict[str, Any]:
    """What is known of a file: name, size in pixels, notes, the job it came from."""
    return public(studio(request).files.get(file))


@router.delete("/files/{file}", status_code=204)
def delete_file(request: Request, file: str) -> None:
    """Remove an upload or a result."""
    studio(request).files.delete(file)


@router.get("/gallery", tags=["gallery"])
def gallery(request: Request, after: int = 0, most: int = 60) -> dict[str, Any]:
    """Pictures that were made, the newest first. after: only those with a smaller number."""
    found = studio(request)
    rows = found.files.gallery(after, most)
    shown: list[dict[str, Any]] = []
    for row in rows:
        verb = found.database.one("SELECT verb, wish FROM jobs WHERE id = ?", (row["job"],))
        shown.append({**public(row), "verb": verb["verb"] if verb else None})
    return {"items": shown, "next": rows[-1]["number"] if len(rows) >= most else None}


@router.get("/gallery/{file}/recipe", tags=["gallery"])
def gallery_recipe(request: Request, file: str) -> dict[str, Any]:
    """The recipe in a picture, and its job as a form's values."""
    found = studio(request)
    row = found.files.get(file)
    recipe = recipe_of(found.files.path(row), row["name"])
    return {"recipe": asdict(recipe), **filled(found, recipe)}


@router.post("/gallery/{file}/rerun", status_code=201, tags=["gallery"])
def gallery_rerun(request: Request, file: str) -> dict[str, str]:
    """Queue the job of a picture again; the new job's id."""
    found = studio(request)
    row = found.files.get(file)
    if row["job"] is None:
        raise LookupError(
            "The job of this picture was deleted. Fill in the form from its recipe instead."
        )
    return {"id": found.submit(found.jobs.get(row["job"])["wish"])}


@router.delete("/gallery/{file}", status_code=204, tags=["gallery"])
def gallery_delete(request: Request, file: str) -> None:
    """Remove a result."""
    studio(request).files.delete(file)


@router.post("/recipe", tags=["gallery"])
def read_dropped(request: Request, file: Upload) -> dict[str, Any]:
    """The recipe of a dropped picture, and its job as a form's values.

    missing: inputs that the studio does not have, by role and name.
    """
    found = studio(request)
    recipe = uploaded(found, file.file)
    return {"recipe": asdict(recipe), **filled(found, recipe)}
