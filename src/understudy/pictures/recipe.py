"""What made a picture: command, settings, inputs by hash, model, seed, versions; in its PNG.

A recipe holds no path, no time and no picture of the inputs: file names and SHA-256 alone, so the
same command writes the same recipe and nothing private travels. Stored as JSON in the iTXt chunk
"understudy" of a PNG, in the XMP packet of a JPEG or WebP.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from understudy._version import __version__
from understudy.errors import PictureError
from understudy.files import spec
from understudy.files.reading import parse_json, sha256
from understudy.pictures import xmp
from understudy.pictures.photo import check_is_file, texts

KEY = "understudy"
FORMAT = 1
MAX_JSON = 1_000_000  # characters
VERSIONED = ("torch", "diffusers", "transformers", "numpy", "pillow")
Json = Any  # what json.loads gives
_FILE = spec.Record({"role": spec.Text(), "name": spec.Text(), "sha256": spec.Text(most=64)})
DECLARED = spec.Record(
    {"command": spec.Text(), "ingredients": spec.Items(_FILE)},
    {
        "settings": spec.Table(spec.Data()),
        "arguments": spec.Table(spec.Data()),
        "model": spec.Text(),
        "model_fingerprint": spec.Text(),
        "seed": spec.Maybe(spec.Number(0, 2**64, whole=True)),
        "versions": spec.Table(spec.Text()),
        "job": spec.Table(spec.Data()),
        "output": spec.Number(0, 100_000, whole=True),
    },
)


@dataclass(frozen=True)
class Ingredient:
    """A file that went in: its role ("photo", "mask", "concept"), its bare name, its SHA-256."""

    role: str
    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What made this picture.

    arguments: what the command was given beside its settings, like the prompt; JSON values.
    model, model_fingerprint: name and SHA-256 of the model; empty when none took part.
    job: what `understudy rerun` runs again (`jobs.request.Job` as JSON). output: which of its
    pictures this is, from 0.
    """

    command: str
    settings: dict[str, Json] = field(default_factory=dict[str, Json])
    arguments: dict[str, Json] = field(default_factory=dict[str, Json])
    ingredients: tuple[Ingredient, ...] = ()
    model: str = ""
    model_fingerprint: str = ""
    seed: int | None = None
    versions: dict[str, str] = field(default_factory=lambda: versions())
    job: dict[str, Json] = field(default_factory=dict[str, Json])
    output: int = 0

    def to_json(self) -> str:
        """One line of JSON with sorted keys."""
        body = {"format": FORMAT, **dataclasses.asdict(self)}
        return json.dumps(body, sort_keys=True, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The reverse of `to_json`. Raises PictureError for anything else, however hostile."""
        body = parse_json(text, "The recipe in this picture", most=MAX_JSON, error=PictureError)
        version = (
            cast(dict[str, Json], body).pop("format", None) if isinstance(body, dict) else None
        )
        if version != FORMAT:
            raise PictureError(
                f"Expected a recipe of format {FORMAT}, got {spec.shown(version)}. Update "
                "understudy."
            )
        try:
            DECLARED.check(body, "The recipe in this picture")
        except spec.Unfit as problem:
            raise PictureError(f"The recipe in this picture was altered: {problem}.") from None
        files = tuple(Ingredient(**entry) for entry in body.pop("ingredients"))
        return cls(ingredients=files, **body)

    def to_text(self) -> dict[str, str]:
        """The PNG text chunk to write with the picture."""
        return {KEY: self.to_json()}


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """The recipe a picture carries. Raises PictureError when it carries none."""
    chunks, packet = texts(path)
    text = chunks.get(KEY) or xmp.recipe_text(packet)
    if text is None:
        raise PictureError(
            f"{path} has no recipe: it was not made by understudy, or was saved by another program."
        )
    return Recipe.from_json(text)


def ingredients(role: str, paths: Iterable[str | os.PathLike[str]]) -> tuple[Ingredient, ...]:
    """Files by hash. Raises PictureError, naming the file, for one that cannot be read."""
    return tuple(ingredient(role, path) for path in paths)


def ingredient(role: str, path: str | os.PathLike[str]) -> Ingredient:
    """One file by hash."""
    file = Path(path)
    check_is_file(file)
    return Ingredient(role, file.name, sha256(file, error=PictureError))


def versions() -> dict[str, str]:
    """This package, Python and the libraries a result depends on, without importing them."""
    found = {"understudy": __version__, "python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
