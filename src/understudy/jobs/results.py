"""Pictures with their recipes: places checked before the work, marks applied at the end.

The recipe of a picture is its job, the hashes of its inputs and the versions, so that `rerun` can
make the picture again.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from understudy.files.atomic import check_writable
from understudy.jobs.request import Job, group_name
from understudy.jobs.work import Work
from understudy.settings import Settings
from understudy.settings.marks import MarkSettings

if TYPE_CHECKING:
    from torch import Tensor

    from understudy.generators.interface import ImageGenerator
    from understudy.models.interface import DiffusionModel
    from understudy.pictures.photo import Pixels
    from understudy.pictures.recipe import Recipe

HIDDEN = ("invert", "mark")  # groups that a recipe does not show flat
PLACES = ("out", "picture")  # inputs that say where results go
APART = ("film", "save", "fresh", "resume", "view")  # inputs that do not change a picture
UNSIGNED = MarkSettings(watermark="off", c2pa="off")  # of files that are the same byte for byte


def recipe_of(
    work: Work,
    model: DiffusionModel | ImageGenerator,
    *settings: Settings,
    facts: Mapping[str, Any],
    seed: int | None = None,
) -> Recipe:
    """The recipe of the pictures of this job.

    settings: as resolved; all but the inversion's are shown flat besides. facts: what else a reader
    of the recipe wants to know, like the target prompt.
    """
    from understudy.pictures.recipe import Recipe

    groups = {group_name(type(group)): group.to_dict() for group in settings}
    if "mark" in work.job.settings:  # the key that signs is whose key it is, not what was made
        groups["mark"] = {k: v for k, v in work.job.settings["mark"].items() if k != "sign_key"}
    if "run" in groups:
        groups["run"]["model"] = bare_model(str(groups["run"]["model"]))
    shown = {k: v for name, group in groups.items() if name not in HIDDEN for k, v in group.items()}
    given = {name: value for name, value in work.job.inputs.items() if name not in APART}
    inputs = {name: bare(name, value, work.paths) for name, value in given.items()}
    job = Job(verb=work.job.verb, settings=groups, inputs=inputs, seed=work.job.seed)
    return Recipe(
        command=work.job.verb,
        settings=shown,
        arguments={name: bare(name, value, ()) for name, value in facts.items()},
        ingredients=tuple(work.ingredients),
        model=bare_model(model.name),
        model_fingerprint=model.fingerprint,
        seed=seed,
        job=job.to_dict(),
    )


def bare(name: str, value: Any, paths: Collection[str]) -> Any:
    """An input without folders: a recipe says nothing of anybody's disk.

    Where results were written does not matter either, only whether that was a file.
    """
    if isinstance(value, list):
        return [bare(name, one, paths) for one in cast(list[Any], value)]
    if name == "generator":
        return bare_model(str(value))
    if name in PLACES:
        return f"{name}{Path(value).suffix}"
    if name == "swap":
        word, _, concept = str(value).rpartition("=")
        return f"{word}={Path(concept.strip()).name}"
    return Path(value).name if name in (*paths, "concept", "after") else value


def bare_model(name: str) -> str:
    """The name of a model or generator; of one on this disk, without its folders."""
    place = Path(name).expanduser()
    try:
        return Path(os.path.abspath(place)).name if place.exists() else name
    except (OSError, ValueError):  # no path at all
        return name


def check_place(path: Path, work: Work | None = None) -> None:
    """Raise InputError for a name that is no .png, .jpg or .webp, OutputError for a bad place.

    work: the job that will write it; see `Work.writes`.
    """
    from understudy.pictures.encode import check_result_name

    check_writable(check_result_name(path))
    if work is not None:
        work.writes(path)


def write_generated(
    path: Path, picture: Tensor, recipe: Recipe, marks: MarkSettings | None
) -> None:
    """A picture "1 3 h w" that a model drew without a photo."""
    from understudy.pictures.marks import Origin, write_result
    from understudy.pictures.tensors import finite_pixels

    write_result(path, finite_pixels(picture, path), recipe, Origin(), marks)


def write_edited(
    path: Path,
    picture: Tensor | Pixels,
    recipe: Recipe,
    marks: MarkSettings | None,
    *,
    photo: Path | None,
    keeps_photo: bool,
) -> None:
    """A picture "1 3 h w", or pixels, made by a model from a photo.

    keeps_photo: its pixels are the photo's outside the change, or it is a figure about the photo.
    """
    from understudy.pictures import xmp
    from understudy.pictures.marks import Origin, write_result
    from understudy.pictures.tensors import finite_pixels

    pixels = finite_pixels(picture, path)
    write_result(path, pixels, recipe, Origin(xmp.COMPOSITE, photo, keeps_photo), marks)


def write_rendered(path: Path, pixels: Pixels, recipe: Recipe) -> None:
    """A picture that the toy world drew: the same seed gives the same bytes, so it is unsigned."""
    from understudy.pictures import xmp
    from understudy.pictures.marks import Origin, write_result

    write_result(path, pixels, recipe, Origin(xmp.RENDERED), UNSIGNED)
