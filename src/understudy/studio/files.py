"""Uploads and results by id. A page never names a path; an id that is not in the table is nothing.

data/files/ID.*          uploads as they came, after they passed the photo opener
data/shown/ID.*          what browsers show of uploads, made from the decoded pixels
data/thumbs/ID.jpg       previews of at most THUMB pixels
data/jobs/ID/in, out     staged inputs and results of a job
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from understudy.errors import InputError, OutputError, PictureError
from understudy.files.atomic import replacing
from understudy.files.reading import sha256
from understudy.pictures.encode import MIME, encoded, shrunk
from understudy.pictures.photo import SUFFIXES, Photo, glance, read_photo
from understudy.studio.config import Config
from understudy.studio.database import Database, plain
from understudy.studio.store import insert_file, new_id

ID = re.compile(r"[0-9a-f]{20}")
THUMB = 320  # pixels of the longer side
EXACT = 2_000_000  # pixels up to which an upload is shown as PNG, above as JPEG
LATENT = "application/octet-stream"
SHOWN = {**MIME, ".gif": "image/gif", ".mp4": "video/mp4", ".json": "application/json"}
_NAME = re.compile(r"[^\w.\- ]+")
_FIELDS = "id, number, kind, name, place, sha256, width, height, notes, created, job"


class FileStore:
    """All files that a page can name."""

    def __init__(self, config: Config, database: Database) -> None:
        self.config, self.database = config, database
        self._decoding = threading.Semaphore(1)  # a large photo takes hundreds of MB
        for name in ("files", "shown", "thumbs", "jobs"):
            (config.data / name).mkdir(parents=True, exist_ok=True)

    def get(self, one: str) -> dict[str, Any]:
        """A file's row. Raises LookupError for anything that is no id of a file."""
        row = None
        if ID.fullmatch(one):
            row = self.database.one(f"SELECT {_FIELDS} FROM files WHERE id = ?", (one,))
        if row is None:
            raise LookupError("There is no such file.")
        return {**row, "notes": plain(row["notes"])}

    def path(self, row: dict[str, Any]) -> Path:
        """Where a file is. Raises LookupError where it is gone or not inside the data folder."""
        place = (self.config.data / row["place"]).resolve()
        if not place.is_relative_to(self.config.data.resolve()) or not place.is_file():
            raise LookupError("This file was deleted.")
        return place

    def shown(self, row: dict[str, Any]) -> tuple[Path, str]:
        """What a browser is sent: a result as it is, an upload as it was decoded; its type."""
        path = self.path(row)
        for suffix in (".png", ".jpg") if row["kind"] in ("upload", "mask") else ():
            made = self.config.data / "shown" / f"{row['id']}{suffix}"
            if made.is_file():
                return made, MIME[suffix]
        return path, SHOWN.get(path.suffix.lower(), LATENT)

    def thumb(self, row: dict[str, Any]) -> Path:
        """The preview of a picture, made when it is first asked for. Raises LookupError."""
        made = self.config.data / "thumbs" / f"{row['id']}.jpg"
        if not made.is_file():
            if not row["width"]:
                raise LookupError("This file is not a picture.")
            with self._decoding:
                self._draw_thumb(row["id"], glance(self.path(row), THUMB).photo)
        return made

    def upload(self, name: str, stream: BinaryIO, kind: str = "upload") -> dict[str, Any]:
        """Keep a picture that passes the photo opener. Raises PictureError, InputError."""
        one = new_id()
        place = self.config.data / "files" / one
        try:
            copied(stream, place, self.config.max_upload)
            with self._decoding:
                photo = _opened(place, name)
                self._draw(one, photo)
                self._draw_thumb(one, photo)
            row = self._row(one, kind, name, place, photo)
        except BaseException:
            place.unlink(missing_ok=True)
            raise
        with self.database.change() as line:
            insert_file(line, row)
        return self.get(one)

    def result(self, path: Path) -> dict[str, Any]:
        """The row of a file that a job wrote, to be put into the table with the job's end."""
        size = (0, 0)
        if path.suffix.lower() in (*MIME, ".gif"):
            size = glance(path, THUMB).size
        row = {"id": new_id(), "kind": "result" if size[0] else "data", "name": path.name}
        row |= {"place": str(path.relative_to(self.config.data)), "sha256": sha256(path)}
        return {**row, "height": size[0], "width": size[1]}

    def gallery(self, after: int, most: int) -> list[dict[str, Any]]:
        """Pictures that jobs made, the newest first; after: with a smaller number only."""
        where = "AND number < ?" if after else "AND ? = 0"
        rows = self.database.all(
            f"SELECT {_FIELDS} FROM files WHERE kind = 'result' {where} "
            "ORDER BY number DESC LIMIT ?",
            (after, min(max(most, 1), 200)),
        )
        return [{**row, "notes": plain(row["notes"])} for row in rows]

    def by_hash(self, digest: str) -> dict[str, Any] | None:
        """A file with this content."""
        found = self.database.one(
            f"SELECT {_FIELDS} FROM files WHERE sha256 = ? ORDER BY number DESC", (digest,)
        )
        return None if found is None else {**found, "notes": plain(found["notes"])}

    def delete(self, one: str) -> None:
        """Remove a file, its preview and its row. Raises LookupError."""
        row = self.get(one)
        with self.database.change() as line:
            line.execute("DELETE FROM files WHERE id = ?", (one,))
        place = (self.config.data / row["place"]).resolve()
        if place.is_relative_to(self.config.data.resolve()):
            place.unlink(missing_ok=True)
        for made in ("shown", "thumbs"):
            for suffix in (".png", ".jpg"):
                (self.config.data / made / f"{one}{suffix}").unlink(missing_ok=True)

    def job_folder(self, job: str) -> Path:
        """Where a job's inputs are staged and its results written."""
        return self.config.data / "jobs" / job

    def stage(self, rows: list[dict[str, Any]], folder: Path) -> list[Path]:
        """Files under their own names in a new folder of a job. Raises LookupError."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        staged: list[Path] = []
        for number, row in enumerate(rows, start=1):
            name = row["name"]
            if (folder / name).exists():
                name = f"{number:02d}-{name}"
            _linked(self.path(row), folder / name)
            staged.append(folder / name)
        return staged

    def used(self) -> dict[str, int]:
        """Bytes on disk: of uploads, of jobs with their results, of concepts."""
        folders = {"uploads": ("files", "shown", "thumbs"), "jobs": ("jobs",)}
        folders |= {"concepts": ("concepts",), "models": ("models",)}
        return {
            name: sum(_bytes(self.config.data / part) for part in parts)
            for name, parts in folders.items()
        }

    def _row(self, one: str, kind: str, name: str, place: Path, photo: Photo) -> dict[str, Any]:
        height, width = photo.size
        row = {"id": one, "kind": kind, "name": safe_name(name), "sha256": sha256(place)}
        row |= {"place": str(place.relative_to(self.config.data)), "notes": list(photo.notes)}
        return {**row, "width": width, "height": height}

    def _draw(self, one: str, photo: Photo) -> None:
        suffix = ".png" if photo.size[0] * photo.size[1] <= EXACT else ".jpg"
        with replacing(self.config.data / "shown" / f"{one}{suffix}") as partial:
            partial.write_bytes(encoded(photo.pixels, suffix, {}, ""))

    def _draw_thumb(self, one: str, photo: Photo) -> None:
        small = shrunk(photo.pixels, THUMB)
        with replacing(self.config.data / "thumbs" / f"{one}.jpg") as partial:
            partial.write_bytes(encoded(small, ".jpg", {}, ""))


def safe_name(name: str) -> str:
    """A file name of letters, digits, dots, dashes and spaces that ends as a picture does."""
    last = re.split(r"[/\\]", name)[-1]
    plain = _NAME.sub("_", last).strip(" .")[-80:] or "photo"
    return plain if Path(plain).suffix.lower() in SUFFIXES else f"{plain}.png"


def public(row: dict[str, Any]) -> dict[str, Any]:
    """A file as the page sees it."""
    names = ("id", "number", "kind", "name", "width", "height", "notes", "created", "job")
    found = {name: row.get(name) for name in names}
    thumb = f"/api/files/{row['id']}/thumb" if row["width"] else None
    return {**found, "url": f"/api/files/{row['id']}", "thumb": thumb}


def _opened(place: Path, name: str) -> Photo:
    """The photo of an upload; an error names the file as the user does."""
    try:
        photo = read_photo(place)
    except PictureError as error:
        raise PictureError(str(error).replace(str(place), safe_name(name))) from None
    notes = tuple(note.replace(place.name, safe_name(name)) for note in photo.notes)
    return replace(photo, notes=notes)


def copied(stream: BinaryIO, place: Path, most: int) -> None:
    """Write an upload. Raises InputError for one that is too large, OutputError."""
    left = most
    try:
        with place.open("wb") as file:
            while chunk := stream.read(2**20):
                left -= len(chunk)
                if left < 0:
                    raise InputError(
                        f"A file may have at most {most // 2**20} MB. Make it smaller."
                    )
                file.write(chunk)
    except OSError as error:
        raise OutputError(
            f"The upload cannot be kept: {error.strerror}. Free some space."
        ) from error


def _linked(source: Path, target: Path) -> None:
    """A hard link, or a copy where there are none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _bytes(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
