"""`understudy drag`, in-process, on a tiny generator."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pictures
from test_stylegan2 import small
from understudy import cli
from understudy.drag import DragSession
from understudy.drag.engine import Engine, State
from understudy.generators.folder import load_generator, save_generator
from understudy.pictures.photo import read_photo
from understudy.pictures.recipe import read_recipe
from understudy.project.latent import Latent

POINTS = "30,30>33,30; 40,20>40,23"


@pytest.fixture
def generator(here: Path) -> str:
    model = small()
    return str(save_generator(here / "gan", model.config, model.state_dict()))


def run(*words: object) -> int:
    return cli.main(["drag", *(str(word) for word in words), "--device", "cpu"])


def test_drag_and_go_on(generator: str, capsys: pytest.CaptureFixture[str]) -> None:
    white = np.zeros((64, 64, 3), np.uint8)
    white[10:50, 10:50] = 255
    mask = pictures.save(Path("mask.png"), white)
    first = ("--seed", 3, "--points", POINTS, "--mask", mask, "--steps", 3, "--film", "out.gif")
    more = ("--save", "one.drag", "--also", "4,5", "--out", "one.png", "--json", "--r2", 24)
    assert run("--generator", generator, *first, *more) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["stop"] == "cap" and shown["steps"] == 3 and len(shown["points"]) == 2
    assert read_photo("one.png").size == (64, 64)
    recipe = read_recipe("one.png")
    assert recipe.command == "drag" and recipe.seed == 3 and recipe.settings["r2"] == 24
    assert [file.role for file in recipe.ingredients] == ["mask"]
    assert read_recipe("one-5.png").arguments["edit_of"] == 3
    assert Path("one-4.png").exists()
    with Image.open("out.gif") as film:
        assert film.n_frames == 2  # step 0 and the last
    saved = DragSession.load("one.drag")
    again = ("--session", "one.drag", "--out", "two.png", "--film", "two.gif")
    assert run("--generator", generator, *again) == 0
    told = capsys.readouterr().out.splitlines()
    assert "ended at the limit of 3 steps (--steps)" in told[0] and told[1:] == ["two.gif"]
    assert saved.settings.steps == 3
    assert (read_photo("one.png").pixels != read_photo("two.png").pixels).any()


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (["--seed", 3], "at least one handle", 2),
        (["--points", POINTS], "Give one of --seed", 2),
        (["--seed", 3, "--points", "1,2"], "--points must be like", 2),
        (["--seed", 3, "--points", "1,2>64,3"], "outside the picture", 2),
        (["--seed", 3, "--points", POINTS, "--film", "a.avi"], ".gif or .mp4", 2),
        (["--seed", 3, "--points", POINTS, "--also", "x"], "--also must be seeds", 2),
        (["--seed", 3, "--points", POINTS, "--mask", "small.png"], "32 x 32 pixels", 2),
        (["--seed", 3, "--points", POINTS, "--mask", "black.png"], "black everywhere", 2),
        (["--seed", 3, "--points", POINTS, "--space", "z"], "--space must be one of", 2),
        (["--session", "none.drag"], "none.drag", 2),
        (["--seed", 3, "--points", POINTS, "--generator", "nowhere"], "no generator", 2),
    ],
)
def test_wrong_words_are_one_line(
    generator: str, capsys: pytest.CaptureFixture[str], words: list[object], message: str, code: int
) -> None:
    pictures.save(Path("small.png"), np.full((32, 32, 3), 255, np.uint8))
    pictures.save(Path("black.png"), np.zeros((64, 64, 3), np.uint8))
    given = () if "--generator" in words else ("--generator", generator)
    assert run(*given, *words) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert not Path("dragged.png").exists()


def test_a_projected_photo_is_dragged(generator: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = small()
    name = "synthesis.b64.conv1.bias"
    changes = {name: torch.full_like(model.state_dict()[name], 0.5).half()}
    known = load_generator(generator, device="cpu")
    ws = model.latents(model.draw_z(8))
    Latent(ws, "gan", known.fingerprint, "photo", changes).save("face.latent.safetensors")
    words = ("--generator", generator, "--latent", "face.latent.safetensors")
    assert run(*words, "--points", POINTS, "--steps", 1, "--save", "one.drag") == 0
    assert [file.role for file in read_recipe("dragged.png").ingredients] == ["latent"]
    assert DragSession.load("one.drag").fingerprint != known.fingerprint
    assert run(*words, "--session", "one.drag", "--out", "two.png") == 0
    capsys.readouterr()
    assert run(*words[:2], "--session", "one.drag", "--out", "three.png") == 2
    assert "started with the generator" in capsys.readouterr().err


def test_an_edit_goes_back_into_its_photo(
    generator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    pictures.save(Path("photo.png"), photo)
    pictures.save(Path("other.png"), photo[:80])
    model = small()
    ws = model.latents(model.draw_z(8))
    fingerprint = load_generator(generator, device="cpu").fingerprint
    place = {"photo": [90, 120], "square": [60.0, 45.0, 30.0, 0.0, 0.0, 30.0]}
    Latent(ws, "gan", fingerprint, "photo", {}, place).save("face.latent.safetensors")
    Latent(ws, "gan", fingerprint, "photo").save("older.latent.safetensors")
    words = ("--generator", generator, "--points", POINTS, "--steps", 20, "--learning-rate", 0.2)
    latent = ("--latent", "face.latent.safetensors")
    assert run(*words, *latent, "--into", "photo.png") == 0
    made = read_photo("dragged.png").pixels
    assert made.shape == photo.shape and (made != photo).any()
    outside = np.ones((90, 120), bool)
    outside[15:75, 30:90] = False
    assert np.array_equal(made[outside], photo[outside])
    assert {file.role for file in read_recipe("dragged.png").ingredients} == {"latent", "photo"}
    capsys.readouterr()
    for wrong, message in (
        ((*latent, "--into", "other.png"), "80 pixels, the photo that was projected 120 x 90"),
        (("--seed", 1, "--into", "photo.png"), "needs the --latent"),
        (("--latent", "older.latent.safetensors", "--into", "photo.png"), "Project it again"),
    ):
        assert run(*words, *wrong) == 2
        assert message in capsys.readouterr().err


def test_several_subjects_go_back_into_their_photo(
    generator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8)
    pictures.save(Path("photo.png"), photo)
    model = small()
    fingerprint = load_generator(generator, device="cpu").fingerprint
    for name, seed, across in (("left", 8, 40.0), ("right", 9, 120.0), ("other", 9, 120.0)):
        place = {"photo": [90, 160 if name != "other" else 150],
                 "square": [across, 45.0, 30.0, 0.0, 0.0, 30.0]}  # fmt: skip
        ws = model.latents(model.draw_z(seed))
        changes = {}
        if name == "right":  # each subject is drawn by the generator that was tuned to it
            bias = "synthesis.b64.conv1.bias"
            changes = {bias: torch.full_like(model.state_dict()[bias], 0.2).half()}
        Latent(ws, "gan", fingerprint, name, changes, place).save(f"{name}.latent.safetensors")
    how = ("--generator", generator, "--steps", 20, "--learning-rate", 0.2)
    left = ("--latent", "left.latent.safetensors", "--points", POINTS)
    points = "20,30>24,30"
    right = ("--other-latent", "right.latent.safetensors", "--other-points", points)
    assert run(*how, *left, "--into", "photo.png", *right, "--out", "both.png", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["stop"]) == len(told["steps"]) == len(told["left"]) == 2
    both = read_photo("both.png").pixels
    # One after the other, each into the result of the last, gives the same picture.
    assert run(*how, *left, "--into", "photo.png", "--out", "one.png") == 0
    second = ("--latent", "right.latent.safetensors", "--points", points)
    assert run(*how, *second, "--into", "one.png", "--out", "two.png") == 0
    assert np.array_equal(both, read_photo("two.png").pixels)
    outside = np.ones((90, 160), bool)
    for x in (10, 90):
        assert (both[15:75, x : x + 60] != photo[15:75, x : x + 60]).any()
        outside[15:75, x : x + 60] = False
    assert both.shape == photo.shape and np.array_equal(both[outside], photo[outside])
    recipe = read_recipe("both.png")
    roles = [(one.role, one.name) for one in recipe.ingredients]
    assert ("latent", "left.latent.safetensors") in roles
    assert ("other_latent", "right.latent.safetensors") in roles
    assert cli.main(["rerun", "both.png", "--out", "again.png", "--inputs", "."]) == 0
    assert np.array_equal(read_photo("again.png").pixels, both)
    capsys.readouterr()
    wrong = ("--other-latent", "other.latent.safetensors", "--other-points", points)
    for words, message in (
        ((*left, "--into", "photo.png", *right[:2]), "Each --other-latent needs its own"),
        ((*left, *right), "needs --latent and --into"),
        ((*left, "--into", "photo.png", *right, "--film", "a.gif"), "--film is for one subject"),
        ((*left, "--into", "photo.png", *right, "--also", "3"), "--also is for one subject"),
        ((*left, "--into", "photo.png", *right[:3], "1,2"), "--points must be like"),
        ((*left, "--into", "photo.png", *wrong), "the photo that was projected 150 x 90"),
    ):
        assert run(*how, *words, "--out", "none.png") == 2
        assert message in capsys.readouterr().err and not Path("none.png").exists()


def test_another_generators_session_is_refused(
    generator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--generator", generator, "--seed", 1, "--points", POINTS, "--steps", 1,
               "--save", "one.drag") == 0  # fmt: skip
    other = small(1)
    save_generator("other", other.config, other.state_dict())
    capsys.readouterr()
    assert run("--generator", "other", "--session", "one.drag") == 2
    assert "started with the generator" in capsys.readouterr().err


@pytest.mark.parametrize("saved", [True, False])
def test_a_stopped_drag_says_what_is_kept(
    saved: bool, generator: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--generator", generator, "--seed", 3, "--points", POINTS, "--steps", 4)
    words = (*words, *(("--save", "one.drag") if saved else ()))
    step, made = Engine.step, list[int]()

    def interrupted(engine: Engine, state: State, update: bool = True) -> object:
        made.append(1)
        if len(made) == 3:
            raise KeyboardInterrupt
        return step(engine, state, update=update)

    monkeypatch.setattr(Engine, "step", interrupted)
    assert run(*words) == 130
    *_, line = capsys.readouterr().err.splitlines()
    if not saved:
        assert line.endswith("A drag is only saved with --save FILE.")
        return
    assert line.endswith(
        "The drag so far is saved in one.drag. To continue, use --session one.drag."
    )
    monkeypatch.setattr(Engine, "step", step)
    assert DragSession.load("one.drag").state.step == 2
    assert run("--generator", generator, "--session", "one.drag", "--out", "two.png") == 0
