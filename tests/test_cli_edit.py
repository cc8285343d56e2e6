"""`understudy edit` in-process on a tiny model: every method, its recipe, its errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import pictures
from test_cli import ran, run
from tiny import tiny_folder, tiny_model
from understudy.concept import Concept
from understudy.pictures.photo import read_photo
from understudy.pictures.recipe import read_recipe

ABOUT = ("--prompt", "a photo of cat", "--steps", 2, "--model", str(tiny_folder("toy")))
TO = ("--to", "a photo of red dog")


@pytest.fixture
def photo(here: Path) -> Path:
    return pictures.save(Path("photo.png"), pictures.gradient(80, 90))


def test_words_are_edited_and_the_recipe_says_how(photo: Path, capsys, cache: Path) -> None:
    words = (
        "--reweight",
        "red=2",
        "--window",
        "dog=0:0.5",
        "--blend",
        "cat=dog",
        "--preserve",
        "photo",
    )
    to = (*TO, "--to", "a photo of dog")
    words = ("edit", photo, *ABOUT, *to, "--inversion", "direct", *words, "--out", "new.png")
    shown = ran(capsys, *words)
    assert shown["pictures"] == ["new-1.png", "new-2.png"]
    made = read_photo("new-1.png").pixels
    recipe = read_recipe("new-1.png")
    assert recipe.command == "edit" and recipe.settings["method"] == "p2p"
    assert recipe.settings["self_map_steps"] == 1  # half of two, as published of fifty
    targets = [read_recipe(f"new-{n}.png").arguments["target_prompt"] for n in (1, 2)]
    assert targets == ["a photo of red dog", "a photo of dog"]
    assert recipe.arguments["reweight"] == ["red=2"] and recipe.arguments["inversion"] == "direct"
    assert [file.role for file in recipe.ingredients] == ["photo"]
    assert len(list(cache.rglob("*.safetensors"))) == 1
    ran(capsys, *words)
    assert np.array_equal(read_photo("new-1.png").pixels, made)


def test_layout_is_kept_by_features(photo: Path, capsys) -> None:
    mask = pictures.save(Path("mask.png"), np.full((80, 90, 3), 255, np.uint8))
    how = ("--method", "pnp", "--inversion-steps", 4, "--negative", "blue toy")
    how = (*how, "--mask", mask, "--out", "new.png")
    shown = ran(capsys, "edit", photo, *ABOUT, *TO, *how)
    assert shown["inversion"] == "ddim" and read_photo("new.png").size == (80, 90)
    assert read_recipe("new.png").settings["negative"] == "blue toy"


def test_a_learnt_tail_edits_from_the_photo_or_from_a_seed(photo: Path, capsys) -> None:
    model = tiny_model("toy")
    Concept(
        name="rex",
        identifier="",
        class_noun="cat",
        kind="hiper",
        base_model=model.name,
        base_fingerprint=model.base_fingerprint,
        tensors={"tail": torch.ones(3, 16)},
    ).save(Path("concepts/rex"))
    how = ("--method", "hiper", "--concept", "rex", "--to", "a photo of {rex} on the beach")
    ran(capsys, "edit", photo, *ABOUT, *how, "--out", "photo-noise.png")
    shown = ran(capsys, "edit", photo, *ABOUT, *how, "--seed", 3, "--out", "seed-noise.png")
    assert shown["inversion"] == "seed" and read_recipe("seed-noise.png").seed == 3
    made = [read_photo(f"{name}-noise.png").pixels for name in ("photo", "seed")]
    assert not np.array_equal(*made)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--reweight", "red"), "--reweight must be WORD=NUMBER, like cat=0.5. Got 'red'"),
        (("--reweight", "red=much"), "--reweight needs a number after the word. Got 'much'"),
        (("--window", "red=0.9:0.1"), "--window needs a share or FROM:TO, from 0 to 1"),
        (("--reweight", "bear=2"), 'the word "bear" is not in the prompt'),
        (("--blend", "bear"), "its words are: a, photo, of, cat"),
        (("--preserve", "bear"), 'the word "bear" is in none of the prompts'),
        (("--preserve", "photo"), "--preserve excludes words from the area of --blend"),
        (("--method", "hiper"), "--method hiper needs a concept"),
        (("--method", "pnp", "--blend", "cat=dog"), "pnp has no options for single words"),
        (("--method", "pnp", "--inversion-steps", 3, "--negative", ""), "leave out time"),
        (("--seed", 3), "--seed needs --method hiper"),
        (("--alignment", "replace"), "needs equally many words"),
        (("--method", "magic"), "--method must be one of p2p, pnp, hiper"),
        (("--inversion", "magic"), "--inversion must be one of null-text, ddim"),
        (("--out", "new.bmp"), "png"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words, said: str, photo: Path, capsys) -> None:
    how = ("--inversion", "direct", *words)
    assert run("edit", photo, *ABOUT, *TO, *how) == 2
    error = capsys.readouterr().err
    assert said in error and [line for line in error.splitlines() if line][-1].startswith(
        "understudy: "
    )
    assert not list(Path().glob("*edited*"))
