"""`rerun`: a picture made again from its recipe, and compared with it pixel by pixel.

A recipe names the inputs and holds their SHA-256; here they are found by name in the folders given,
and must be the same bytes. Everything is computed again, without the cache of the user. What was
made with a part of it in the cache is made the same way, because rounding differs.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from understudy.errors import InputError, PictureError
from understudy.files.atomic import replacing
from understudy.files.builtin import builtin_concept
from understudy.jobs.events import Event, Events, Result
from understudy.jobs.request import Job, path_inputs
from understudy.jobs.results import PLACES, check_place
from understudy.jobs.runner import run, verb_function
from understudy.jobs.work import MANIFEST, STORE, Work
from understudy.models.registry import available, generators
from understudy.pictures.photo import read_photo
from understudy.pictures.recipe import Ingredient, Recipe, ingredient, read_recipe, versions

ROLES = {"into": "photo", "tracker_weights": "tracker"}  # of inputs with another name
CONCEPTS = ("concept", "after", "swap")  # inputs that name concepts


def rerun(
    work: Work,
    *,
    picture: Path,
    out: Path,
    inputs: list[str] = [],  # noqa: B006
) -> Events[Result]:
    """Make a picture again from its recipe.

    inputs: folders to look for the inputs and the model in, besides the working folder and the
    picture's own.
    """
    check_place(out, work)
    recipe = read_recipe(picture)
    if not recipe.job:
        raise PictureError(
            f"{picture} was made by {recipe.command} of understudy "
            f"{recipe.versions.get('understudy', '?')}, which recorded no job to run again."
        )
    folders = [Path("."), picture.parent, *map(Path, inputs)]
    job = located(Job.from_dict(recipe.job), recipe, folders)
    work.note(*changed_versions(recipe.versions))
    with tempfile.TemporaryDirectory() as scratch, private_cache(Path(scratch) / "cache"):
        for before in warming(job, recipe):
            yield from silenced(run(into(before, Path(scratch) / "before"), work.pool))
        made = yield from silenced(run(into(job, Path(scratch) / "out"), work.pool))
        file = Path(made.files[recipe.output])
        check_model(recipe, read_recipe(file), picture)
        same = identical(file, picture)
        with replacing(out) as temporary:
            temporary.write_bytes(file.read_bytes())
    told = "the same pixels" if same else "other pixels; see the notes"
    if not same:
        work.note(*reasons(recipe))
    values = {"picture": str(out), "identical": same, "verb": job.verb}
    return Result(values, (f"{out}   {told} as {picture}",), (str(out),))


def located(job: Job, recipe: Recipe, folders: Sequence[Path]) -> Job:
    """The job with its inputs where they are now. Raises InputError that lists every input that
    is missing or was changed."""
    places: dict[tuple[str, str], Path] = {}
    faults: list[str] = []
    for wanted in recipe.ingredients:
        named = str(job.inputs.get(wanted.role, ""))  # the folder of photos, where it is one
        found = find(wanted, [*(folder / named for folder in folders), *folders])
        if isinstance(found, Path):
            places[wanted.role, wanted.name] = found
        else:
            faults.append(found)
    settings = {name: dict(group) for name, group in job.settings.items()}
    named = dict(job.inputs)
    for holder, key in ((settings.get("run", {}), "model"), (named, "generator")):
        if (place := model_place(str(holder.get(key) or ""), folders)) is None:
            faults.append(f"{key} {holder[key]} is missing.")
        elif place:
            holder[key] = place
    if faults:
        raise InputError(f"{' '.join(faults)} Name folders to search with --inputs.")
    paths = path_inputs(verb_function(job.verb))
    inputs = {name: _placed(name, value, paths, places) for name, value in named.items()}
    return dataclasses.replace(job, settings=settings, inputs=inputs)


def model_place(name: str, folders: Sequence[Path]) -> str | None:
    """A model that a recipe names: as it is, if it is built in or on the hub, else where it is in
    the folders; None if it is in none of them. check_model compares its fingerprint later."""
    if not name or name in (*available(), *generators()):
        return name
    places = (folder / name for folder in folders)
    return next((str(one) for one in places if one.exists()), name if "/" in name else None)


def find(wanted: Ingredient, folders: Sequence[Path]) -> Path | str:
    """Where an input is: a file, or a concept's folder; or what is wrong with it."""
    candidates: list[Path] = []
    for folder in folders:
        if wanted.role == "concept":
            candidates += [folder / wanted.name, folder / STORE / wanted.name]
        else:
            candidates += [folder / wanted.name, *sorted(folder.glob(f"*/{wanted.name}"))]
    shipped = builtin_concept(wanted.name) if wanted.role == "concept" else None
    candidates += [shipped] if shipped else []
    there = False
    for place in candidates:
        file = place / MANIFEST if wanted.role == "concept" else place
        if file.is_file():
            there = True
            if ingredient(wanted.role, file).sha256 == wanted.sha256:
                return place
    what = "was changed" if there else "is missing"
    return f"{wanted.role} {wanted.name} {what}."


def _placed(
    name: str, value: Any, paths: frozenset[str], places: Mapping[tuple[str, str], Path]
) -> Any:
    """An input with its bare name replaced by the path where it was found."""
    if isinstance(value, list):
        return [_placed(name, one, paths, places) for one in value]  # pyright: ignore
    if name == "swap":
        word, _, rest = str(value).rpartition("=")
        concept, colon, strength = rest.partition(":")
        return f"{word}={places['concept', concept]}{colon}{strength}"
    if name in CONCEPTS:
        return str(places["concept", str(value)])
    if name not in paths or name in PLACES:
        return value
    role = ROLES.get(name, name)
    if (role, str(value)) in places:
        return str(places[role, str(value)])
    inside = [place.parent for (kind, _), place in places.items() if kind == role]
    return str(max(inside, key=inside.count)) if inside else value


def into(job: Job, folder: Path) -> Job:
    """The job with its results in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    moved = {name: str(folder / job.inputs[name]) for name in PLACES if name in job.inputs}
    return dataclasses.replace(job, inputs={**job.inputs, **moved})


def warming(job: Job, recipe: Recipe) -> Iterator[Job]:
    """What must run before, so that the cache holds what it held when the picture was made."""
    found = recipe.arguments.get("cache", "nothing")
    if found == "inversion" and "swap" in job.settings:
        swap = {**job.settings["swap"], "features": 0.0}
        yield dataclasses.replace(job, settings={**job.settings, "swap": swap})
    elif found != "nothing":
        yield job


def changed_versions(recorded: Mapping[str, str]) -> list[str]:
    """A line for every library that has another version than when the picture was made."""
    now = versions()
    return [
        f"made with {name} {old}; this is {now.get(name, 'not there')}."
        for name, old in recorded.items()
        if now.get(name) != old
    ]


def check_model(recipe: Recipe, now: Recipe, picture: Path) -> None:
    """Raise InputError where the model is another one than the picture was made with."""
    if now.model_fingerprint != recipe.model_fingerprint:
        raise InputError(
            f"The model {recipe.model} was changed: {picture} was made with "
            f"{recipe.model_fingerprint[:12]}, this one is {now.model_fingerprint[:12]}."
        )


def reasons(recipe: Recipe) -> list[str]:
    """What may be behind other pixels when inputs, settings and model are the same."""
    if changed_versions(recipe.versions):
        return ["the pixels differ; other versions may round differently."]
    return ["the pixels differ; another processor, GPU or number of threads may round differently."]


def identical(one: Path, other: Path) -> bool:
    """Whether two pictures have the same pixels."""
    return bool(np.array_equal(read_photo(one).pixels, read_photo(other).pixels))


def silenced(events: Iterator[Event]) -> Events[Result]:
    """The events of a job that is a part of this one; returns its result."""
    for event in events:
        if isinstance(event, Result):
            return event
        yield event
    raise AssertionError("a job ends with its result")


@contextmanager
def private_cache(folder: Path) -> Generator[None]:
    """Use an empty cache inside the block."""
    before = os.environ.get("UNDERSTUDY_CACHE")
    os.environ["UNDERSTUDY_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["UNDERSTUDY_CACHE"]
        else:
            os.environ["UNDERSTUDY_CACHE"] = before
