"""Recipes of pictures, turned into what a form is filled with."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from understudy.errors import InputError
from understudy.jobs.request import Job, group_name
from understudy.pictures.photo import read_photo
from understudy.pictures.recipe import Recipe, read_recipe
from understudy.studio import verbs
from understudy.studio.files import copied
from understudy.studio.studio import Studio

ROLES = {"into": "photo", "session": "session"}  # inputs whose files have another role


def uploaded(studio: Studio, stream: BinaryIO) -> Recipe:
    """The recipe of an uploaded picture, which is not kept. Raises PictureError, InputError."""
    with tempfile.TemporaryDirectory(dir=studio.config.data) as folder:
        file = Path(folder) / "picture"
        copied(stream, file, studio.config.max_upload)
        return recipe_of(file, "This picture")


def recipe_of(file: Path, name: str) -> Recipe:
    """The recipe of a picture of the studio. Raises InputError that calls it `name`."""
    try:
        read_photo(file)
        return read_recipe(file)
    except InputError as error:
        raise type(error)(str(error).replace(str(file), name)) from None


def filled(studio: Studio, recipe: Recipe) -> dict[str, Any]:
    """The job of a recipe as a form's values; what the studio lacks is in `missing`.

    Files are found by their content, whatever they are called here. Settings that this version
    does not have are left out. Raises InputError for a recipe whose job was altered.
    """
    if not recipe.job:
        return {"form": None, "missing": []}
    job = Job.from_dict(recipe.job)
    one = verbs.VERBS.get(job.verb)
    if one is None:
        return {"form": None, "missing": []}
    hashes: dict[tuple[str, str], str] = {
        (part.role, part.name): part.sha256 for part in recipe.ingredients
    }
    missing: list[dict[str, str]] = []
    inputs: dict[str, Any] = {}
    for single in one.inputs:
        value = job.inputs.get(single.name)
        if value is None:
            continue
        role = ROLES.get(single.name, single.name)
        if single.kind in (verbs.PICTURE, verbs.FILE):
            value = _known(studio, hashes, role, str(value), missing)
        elif single.kind in (verbs.PICTURES, verbs.LISTED):
            names = [name for kind, name in hashes if kind == role]
            found = [_known(studio, hashes, role, name, missing) for name in names]
            value = [one for one in found if one]
        if value:
            inputs[single.name] = value
    form = {"verb": one.name, "settings": _settings(one, job.settings), "inputs": inputs}
    return {"form": {**form, "seed": job.seed}, "missing": missing}


def _known(
    studio: Studio,
    hashes: dict[tuple[str, str], str],
    role: str,
    name: str,
    missing: list[dict[str, str]],
) -> str | None:
    """The id of a file of the studio with the content that a recipe names."""
    row = studio.files.by_hash(hashes.get((role, name), ""))
    if row is None:
        missing.append({"role": role, "name": name})
    return row["id"] if row else None


def _settings(
    one: verbs.Verb, settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Of a recipe's settings those that a form of today has."""
    kept: dict[str, dict[str, Any]] = {}
    for kind in one.groups:
        name = group_name(kind)
        known = set(kind.__dataclass_fields__) - verbs.HIDDEN
        if name in settings:
            kept[name] = {k: v for k, v in settings[name].items() if k in known}
    if "run" in kept:
        kept["run"].pop("device", None)
    return kept
