"""`rerun`: pictures of every verb made again from their recipes, pixel by pixel."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import pictures
from tiny import tiny_folder
from understudy import cli
from understudy.pictures.photo import read_photo
from understudy.pictures.recipe import read_recipe

ABOUT = ("--prompt", "a photo of a cat", "--steps", 2)
SWAP = ("swap", "photo.png", *ABOUT, "--swap", "cat=rex")
EDIT = ("edit", "photo.png", *ABOUT, "--to", "a photo of a dog")
FACE = ("project", "face.png", "--steps", 2, "--tune-steps", 1, "--samples", 8)
DRAG = ("drag", "--points", "64,80>64,84", "--steps", 2)
# Name of the picture -> the command that makes it, where it has a cache of its own to begin with.
MADE: dict[str, tuple[object, ...]] = {
    "swap.png": SWAP,
    "again.png": SWAP,  # with the features that the one before left
    "masked.png": (*SWAP, "--mask", "mask.png", "--noise-seed", 3),
    "paper.png": (*SWAP, "--preset", "paper", "--blend", "--paste"),
    "official.webp": (*SWAP, "--preset", "official", "--method", "ddim"),
    "seeded.png": ("swap", *ABOUT, "--swap", "cat=rex", "--seed", 3),
    "scored.png": (*SWAP, "--photos", "photos", "--watermark", "on"),
    "sweep.png": ("sweep", "photo.png", *ABOUT, "--swap", "cat=rex", "--vary", "self-map=0,1"),
    "maps.png": ("explain", "photo.png", *ABOUT, "--swap", "cat=rex"),
    "edit.png": EDIT,
    "edits.png": (*EDIT, "--to", "a photo of a {rex}", "--concept", "rex"),
    "pnp.png": (*EDIT, "--method", "pnp", "--preset", "paper", "--inversion-steps", 4),
    "tail.png": ("edit", "photo.png", *ABOUT, "--to", "a {mia}", "--method", "hiper")
    + ("--concept", "mia", "--seed", 4),
    "one.png": ("generate", "a photo of {rex}", "--steps", 2, "--concept", "rex"),
    "five": ("generate", "a cat", "--steps", 2, "--count", 5, "--seed", 7),
    "shown": ("demo", "--photos", 2, "--learn-steps", 2, "--prior-samples", 1, "--steps", 2),
    "face-drawn.png": (*FACE, "--picture"),
    "dragged.png": (*DRAG, "--seed", 3, "--also", "4,5"),
    "put-back.png": (*DRAG, "--latent", "face.latent.safetensors", "--into", "face.png"),
}
CHECKED = [name for name in MADE if name not in ("edits.png", "five", "shown")]
CHECKED += ["edits-1.png", "edits-2.png", "five/seed-0011.png", "dragged-5.png"]
CHECKED += ["shown/sheet.png", "shown/swapped.png"]
# The pictures take a minute to make, in each worker; CI remakes one in test_generate_controls.py.
pytestmark = pytest.mark.slow
MODELS = tiny_folder("toy").parent
ALIKE = (
    "again.png",
    "masked.png",
    "paper.png",
    "seeded.png",
    "edits-2.png",
    "dragged-5.png",
    "shown/sheet.png",
    "one.png",
)  # each made as another one is: checked by the slow tests


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, concepts, and a picture of every kind."""
    folder = tmp_path_factory.mktemp("made")
    tiny = ("--model", tiny_folder("toy"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("UNDERSTUDY_CACHE", str(folder / "cache"))
        pictures.save(Path("photo.png"), pictures.gradient(80, 90))
        pictures.save(Path("face.png"), pictures.gradient(128, 128))
        pictures.save(Path("mask.png"), np.full((80, 90, 3), 255, np.uint8))
        for number, level in enumerate((60, 180)):
            pictures.save(Path(f"photos/{number}.png"), np.full((70, 64, 3), level, np.uint8))
        few = ("--steps", 2, "--prior-samples", 1, "--prior-steps", 2, *tiny)
        for name, method in (("rex", "dreambooth"), ("mia", "hiper")):
            words = ("learn", "photos", "--class", "cat", "--name", name, "--method", method)
            assert run(*words, *few) == 0
        for name, words in MADE.items():
            place = (name,) if words[-1] == "--picture" else ("--out", name)
            on = tiny if words[0] not in ("drag", "project") else ()
            assert run(*words, *place, *on) == 0, name
    return folder


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ()) for name in CHECKED],
)
def test_a_picture_is_made_again_pixel_by_pixel(
    name: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    again = (tmp_path / "again").with_suffix(Path(name).suffix)
    assert run("rerun", name, "--out", again, "--inputs", MODELS) == 0
    assert np.array_equal(read_photo(again).pixels, read_photo(name).pixels)
    assert read_recipe(again) == read_recipe(name)


def test_recipes_hold_no_folder(made: Path) -> None:
    for name in CHECKED:
        recipe = read_recipe(made / name)
        text = recipe.to_json()
        assert str(made) not in text and "photos/" not in text and "concepts/" not in text
        assert str(MODELS) not in text


@pytest.fixture
def copied(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One picture in an empty folder."""
    shutil.copy(made / "masked.png", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_missing_and_changed_inputs_are_listed(
    copied: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("rerun", "masked.png") == 2
    told = capsys.readouterr().err
    for missing in ("photo photo.png is missing", "concept rex is missing", "mask mask.png is",
                    "model toy is missing"):  # fmt: skip
        assert missing in told
    pictures.save(Path("photo.png"), pictures.gradient(80, 91))
    assert run("rerun", "masked.png") == 2
    assert "photo photo.png was changed" in capsys.readouterr().err
    assert (
        run("rerun", "masked.png", "--inputs", made, "--inputs", MODELS, "--json") == 0
    )  # the right photo is there
    assert json.loads(capsys.readouterr().out)["identical"]


def test_a_picture_that_was_changed_is_told(
    copied: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = read_recipe("masked.png")
    pixels = read_photo("masked.png").pixels.copy()
    pixels[0, 0] ^= 255
    from understudy.pictures.photo import write_pixels

    write_pixels(Path("touched.png"), pixels, recipe.to_text())
    assert run("rerun", "touched.png", "--inputs", made, "--inputs", MODELS, "--json") == 1
    shown = capsys.readouterr()
    assert not json.loads(shown.out)["identical"] and "the pixels differ" in shown.err


def test_a_recipe_without_a_job_is_refused(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("toybox", "render", "--size", 32, "--out", "scene.png") == 0
    assert run("rerun", "scene.png") == 2
    assert "recorded no job" in capsys.readouterr().err
