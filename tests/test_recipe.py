"""A picture says what made it, and a hostile one is refused in one line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import pictures
from understudy.errors import PictureError
from understudy.pictures.photo import write_pixels
from understudy.pictures.recipe import KEY, MAX_JSON, Ingredient, Recipe, ingredients, read_recipe


def full(tmp_path: Path) -> Recipe:
    photo = pictures.save(tmp_path / "photo å.png")
    return Recipe(
        command="swap",
        settings={"steps": 50, "guidance": 7.5},
        arguments={"prompt": "a café 猫 {rex}"},
        ingredients=ingredients("photo", [photo]),
        model="toybox",
        model_fingerprint="ab" * 32,
        seed=3,
    )


def test_there_and_back_through_a_png(tmp_path: Path) -> None:
    recipe = full(tmp_path)
    path = write_pixels(tmp_path / "out.png", pictures.gradient(), recipe.to_text())
    assert read_recipe(path) == recipe
    assert recipe.versions["understudy"] and recipe.versions["torch"]


def test_ingredients_are_bare_names_and_hashes(tmp_path: Path) -> None:
    recipe = full(tmp_path)
    (file,) = recipe.ingredients
    data = (tmp_path / "photo å.png").read_bytes()
    assert file == Ingredient("photo", "photo å.png", hashlib.sha256(data).hexdigest())
    assert str(tmp_path) not in recipe.to_json()
    with pytest.raises(PictureError, match="nowhere.png"):
        ingredients("photo", [tmp_path / "nowhere.png"])


def test_the_same_recipe_writes_the_same_bytes(tmp_path: Path) -> None:
    assert full(tmp_path).to_json() == full(tmp_path).to_json()


def test_a_picture_of_somebody_else(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        with pytest.raises(PictureError, match="has no recipe"):
            read_recipe(pictures.save(tmp_path / name))


HOSTILE = {
    "not JSON": "{",
    "a list": "[1]",
    "another format": json.dumps({"format": 99}),
    "no command": json.dumps({"format": 1, "ingredients": []}),
    "unknown part": json.dumps({"format": 1, "command": "x", "ingredients": [], "evil": 1}),
    "odd ingredients": json.dumps({"format": 1, "command": "x", "ingredients": [3]}),
    "deep": "[" * 100_000,
    "long": "x" * (MAX_JSON + 1),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_recipes(case: str) -> None:
    with pytest.raises(PictureError) as caught:
        Recipe.from_json(HOSTILE[case])
    assert "\n" not in str(caught.value)


def test_a_text_bomb_in_a_png_is_refused(tmp_path: Path) -> None:
    path = write_pixels(tmp_path / "a.png", pictures.gradient(), {KEY: "x" * 90_000_000})
    with pytest.raises(PictureError):
        read_recipe(path)
