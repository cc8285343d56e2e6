"""What the commands that use a model share: load it, dress it, and say what made a result."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.errors import ConceptError, listed
from understudy.settings import RunSettings
from understudy.settings.knobs import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from understudy.concept import Concept
    from understudy.models.interface import DiffusionModel
    from understudy.pictures.photo import Photo
    from understudy.pictures.recipe import Ingredient, Recipe

STORE = Path("concepts")
MANIFEST = "concept.json"


@dataclass(frozen=True)
class Dress:
    """The concepts a command was given, and the files they came from."""

    concepts: tuple[Concept, ...] = ()
    ingredients: tuple[Ingredient, ...] = ()


def load_model(run: RunSettings) -> DiffusionModel:
    """The model of `--model` on `--device` in `--dtype`."""
    from understudy.cli.show import note
    from understudy.models.registry import load, renamed

    note(*filter(None, [renamed(run.model)]))
    return load(run.model, device=run.device, dtype=run.dtype)


def own_device(run: RunSettings) -> RunSettings:
    """Of several processes on one machine (torchrun) each takes a GPU of its own."""
    from torch.cuda import is_available

    number = os.environ.get("LOCAL_RANK")
    if number is None or run.device != "auto" or not is_available():
        return run
    return replace(run, device=f"cuda:{number}")


def concept_folder(name: str) -> Path:
    """Where the concept `--concept NAME` lies: that folder, or concepts/NAME.

    Raises ConceptError that lists what there is.
    """
    for folder in (Path(name), STORE / name):
        if (folder / MANIFEST).is_file():
            return folder
    there = sorted(entry.parent.name for entry in STORE.glob(f"*/{MANIFEST}"))
    known = f"There are: {listed(there)}." if there else "None was learnt here yet."
    raise ConceptError(
        f"There is no concept {name!r}: neither {name} nor {STORE / name} holds one. {known} "
        f"Make it with: understudy learn PHOTOS/ --class NOUN --name {Path(name).name}"
    )


def load_concepts(names: Iterable[str]) -> Dress:
    """Read concepts by name or folder."""
    from understudy.concept import Concept
    from understudy.pictures.recipe import Ingredient, ingredient

    folders = [concept_folder(name) for name in names]
    files = tuple(
        Ingredient("concept", folder.name, ingredient("concept", folder / MANIFEST).sha256)
        for folder in folders
    )
    return Dress(tuple(Concept.load(folder) for folder in folders), files)


def wearing(model: DiffusionModel, dress: Dress) -> AbstractContextManager[object]:
    """The model wears the concepts inside the block."""
    from understudy.concept import worn

    return worn(model, *dress.concepts) if dress.concepts else ExitStack()


def decoded(model: DiffusionModel, latents: Tensor) -> Tensor:
    """Pictures "b 3 h w" of latents "b c h w"."""
    from torch import no_grad

    with no_grad():
        return model.decode(latents)


def open_photo(path: Path) -> tuple[Photo, Ingredient]:
    """A photo through the door, its notes shown, and its entry for the recipe."""
    from understudy.cli.show import note
    from understudy.pictures.photo import read_photo
    from understudy.pictures.recipe import ingredient

    photo = read_photo(path)
    note(*photo.notes)
    return photo, ingredient("photo", path)


def open_mask(path: Path, photo: Photo, size: tuple[int, int]) -> tuple[Tensor, Ingredient]:
    """A mask "1 1 h w" drawn on a photo, fitted as the photo is, and its entry for the recipe."""
    from understudy.pictures.recipe import ingredient
    from understudy.pictures.tensors import read_mask

    return read_mask(path, photo.size, size), ingredient("mask", path)


def made_by(
    command: str,
    model: DiffusionModel,
    settings: Iterable[Settings],
    *,
    arguments: Mapping[str, object],
    ingredients: Iterable[Ingredient] = (),
    seed: int | None = None,
) -> Recipe:
    """The recipe of a picture: what the command was given, and the model it ran on."""
    from understudy.pictures.recipe import Recipe

    merged = {name: value for group in settings for name, value in group.to_dict().items()}
    return Recipe(
        command=command,
        settings=merged,
        arguments=dict(arguments),
        ingredients=tuple(ingredients),
        model=model.name,
        model_fingerprint=model.fingerprint,
        seed=seed,
    )


def finite(row: dict[str, object]) -> dict[str, object]:
    """The numbers of a row that mean something: JSON knows no NaN."""
    return {name: value for name, value in row.items() if value == value}
