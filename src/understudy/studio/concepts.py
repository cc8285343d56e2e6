"""Learnt concepts, their checkpoints and the curves of their runs, read without torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from understudy.errors import InputError, UnderstudyError, listed
from understudy.files import spec
from understudy.files.builtin import CONCEPTS
from understudy.files.reading import parse_json, read_bytes, read_json
from understudy.jobs.work import MANIFEST
from understudy.studio.config import Config

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,79}")
CHECKPOINT = re.compile(r"step-[0-9]{6}")
JOURNAL, MAX_LOG, MAX_POINTS = "learn.jsonl", 64 * 2**20, 400
CURVES = ("loss", "validation", "identity", "prompt", "drift", "copy")
# What a page is shown of a concept.json; a job checks the rest when it loads the concept.
_TOLD: dict[str, spec.Kind] = {
    **dict.fromkeys(("name", "identifier", "class_noun", "kind", "base_model"), spec.Text(4096)),
    "also": spec.Table(spec.Text()),
}
_CONCEPT = spec.Record({"format": spec.Number(1, 1, whole=True)}, _TOLD, others=spec.Data())


class Concepts:
    """Concepts of the data folder, of the folders the server was given, and the built-in ones."""

    def __init__(self, config: Config) -> None:
        self.store = config.store
        self.folders = (config.store, *config.concepts, CONCEPTS)
        self.store.mkdir(parents=True, exist_ok=True)

    def all(self) -> list[dict[str, Any]]:
        """Every concept as a page sees it; of equal names the first counts."""
        found: dict[str, dict[str, Any]] = {}
        for folder in self._folders():
            try:
                found.setdefault(folder.name, self._told(folder))
            except UnderstudyError:
                continue
        return list(found.values())

    def folder(self, name: str) -> Path:
        """The folder of a concept, or of one of its checkpoints ("rex@step-000100").

        Raises InputError for any name that is not in the list.
        """
        plain, _, step = name.partition("@")
        for folder in self._folders():
            if folder.name == plain:
                place = folder / "checkpoints" / step if step else folder
                if (not step or CHECKPOINT.fullmatch(step)) and (place / MANIFEST).is_file():
                    return place
        there = listed(sorted({folder.name for folder in self._folders()})) or "none yet"
        raise InputError(f"There is no concept {name[:100]!r}. There are: {there}.")

    def one(self, name: str) -> dict[str, Any]:
        """A concept with the curves of its run. Raises InputError."""
        folder = self.folder(name.partition("@")[0])
        return {**self._told(folder), "curves": curves(folder / JOURNAL)}

    def preview(self, name: str, step: int) -> Path:
        """The strip of previews after a step. Raises InputError, LookupError."""
        file = self.folder(name) / "previews" / f"step-{step:06d}.png"
        if not file.is_file():
            raise LookupError("There is no preview of this step.")
        return file

    def free_name(self, name: str) -> None:
        """Raise InputError for a name that no concept can have."""
        if not NAME.fullmatch(name):
            raise InputError(
                f"A concept's name has letters, digits, - and _, and begins with a letter. "
                f"Got {name[:100]!r}."
            )

    def _folders(self) -> Iterator[Path]:
        for place in self.folders:
            if place.is_dir():
                for folder in sorted(place.iterdir()):
                    if NAME.fullmatch(folder.name) and (folder / MANIFEST).is_file():
                        yield folder

    def _told(self, folder: Path) -> dict[str, Any]:
        body = read_json(folder / MANIFEST)
        try:
            _CONCEPT.check(body, "its concept.json")
        except spec.Unfit as problem:
            raise InputError(f"{folder.name} is not a valid concept: {problem}.") from None
        told: dict[str, Any] = {key: body.get(key) for key in _TOLD}
        places = (folder / "checkpoints").glob("step-*")
        steps = sorted(p.name for p in places if CHECKPOINT.fullmatch(p.name))
        drawn = sorted((folder / "previews").glob("step-*.png"))
        previews = [int(p.stem[5:]) for p in drawn if CHECKPOINT.fullmatch(p.stem)]
        told["base_model"] = Path(str(told["base_model"])).name
        size = sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
        phrase = f"{told['identifier']} {told['class_noun']}".strip()
        told |= {"id": folder.name, "phrase": phrase, "bytes": size, "checkpoints": steps}
        told |= {"previews": previews, "created": (folder / MANIFEST).stat().st_mtime}
        return {**told, "built_in": folder.parent == CONCEPTS}


def curves(log: Path) -> dict[str, list[list[float]]]:
    """Curve -> [step, value] of a run's log, thinned to MAX_POINTS; a torn line is left out."""
    if not log.is_file():
        return {}
    text = read_bytes(log, most=MAX_LOG).decode(errors="replace")
    found: dict[str, list[list[float]]] = {name: [] for name in CURVES}
    for line in text.splitlines():
        try:
            said = parse_json(line, "a line", most=100_000)
        except InputError:
            continue
        step = said.get("step") if isinstance(said, dict) else None
        for name, points in found.items():
            value = said.get(name) if isinstance(step, int) else None
            if isinstance(value, int | float) and abs(value) < 1e300 and abs(step or 0) < 1e15:
                points.append([float(step or 0), float(value)])
    return {name: _thinned(points) for name, points in found.items() if points}


def _thinned(points: list[list[float]]) -> list[list[float]]:
    """At most MAX_POINTS of a curve, means of neighbours."""
    if len(points) <= MAX_POINTS:
        return points
    size = -(-len(points) // MAX_POINTS)
    parts = [points[k : k + size] for k in range(0, len(points), size)]
    return [[part[-1][0], sum(v for _, v in part) / len(part)] for part in parts]
