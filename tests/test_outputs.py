"""Results and the files that are there already: no input is replaced, the rest is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hostile import Attack
from tiny import tiny_folder
from understudy import cli

WORDS = ("--prompt", "a photo of a cat")
SWAP = (*WORDS, "--swap", "cat=toby")


@pytest.fixture
def files(here: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    half = np.zeros((64, 64), np.uint8)
    half[16:48, 16:48] = 255
    Path("set").mkdir()
    for name in ("photo.png", "other.png", "set/1.png"):
        Image.fromarray(noise).save(name)
    Image.fromarray(half).save("mask.png")
    Path("link.png").hardlink_to("photo.png")
    for name in ("photo", "weights"):
        Path(f"{name}.safetensors").write_bytes(b"no latent")
    return here


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


INPUTS: dict[str, tuple[tuple[str, ...], str]] = {
    "swap's photo": (("swap", "photo.png", *SWAP), "photo.png"),
    "by another name": (("swap", "photo.png", *SWAP), "./set/../photo.png"),
    "by a link": (("swap", "photo.png", *SWAP), "link.png"),
    "swap's mask": (("swap", "photo.png", *SWAP, "--mask", "mask.png"), "mask.png"),
    "swap's photos": (("swap", "photo.png", *SWAP, "--photos", "set"), "set/1.png"),
    "sweep": (("sweep", "photo.png", *SWAP), "photo.png"),
    "explain": (("explain", "photo.png", *SWAP), "photo.png"),
    "edit's photo": (("edit", "photo.png", *WORDS, "--to", "a dog"), "photo.png"),
    "edit's mask": (("edit", "photo.png", *WORDS, "--to", "a", "--mask", "mask.png"), "mask.png"),
    "edit's reference": (
        ("edit", "photo.png", *WORDS, "--to", "a", "--reference", "other.png"),
        "other.png",
    ),
    "generate": (("generate", "a cat", "--init", "photo.png"), "photo.png"),
    "mask": (("mask", "photo.png", "--select", "cat"), "photo.png"),
    "project's picture": (("project", "photo.png", "--picture", "photo.png"), "x.safetensors"),
    "drag's mask": (
        ("drag", "--seed", "1", "--points", "1,1>9,9", "--mask", "mask.png"),
        "mask.png",
    ),
    "drag's photo": (("drag", "--latent", "photo.safetensors", "--into", "photo.png"), "photo.png"),
    "drag's latent": (
        ("drag", "--latent", "photo.safetensors", "--save", "photo.safetensors"),
        "x.png",
    ),
    "rerun": (("rerun", "photo.png"), "photo.png"),
    "invert": (("invert", "photo.safetensors", *WORDS), "photo.safetensors"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_an_input_is_never_replaced(
    files: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    words, out = INPUTS[name]
    before = {file: file.read_bytes() for file in files.rglob("*") if file.is_file()}
    assert run(*words, "--out", out) == 2
    assert "would be replaced. Give another place." in capsys.readouterr().err
    assert {file: file.read_bytes() for file in files.rglob("*") if file.is_file()} == before


def test_an_earlier_concept_is_no_place_for_the_next(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = Path("concepts/rex")
    earlier.mkdir(parents=True)
    (earlier / "concept.json").write_text("{}")
    words = ("--name", "rex", "--class", "cat", "--after", "rex", "--model", tiny_folder())
    assert run("learn", "set", *words) == 2
    assert f"{earlier} is an input of this command" in capsys.readouterr().err


def test_two_results_are_two_files(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--select", "cat", "--out", "m.png", "--view", "./m.png")
    assert run("mask", "photo.png", *words) == 2
    assert "m.png is named for two results" in capsys.readouterr().err


def test_a_replaced_file_is_said(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("a cat", "--model", tiny_folder(), "--steps", 1)
    said = "other.png exists and will be replaced"
    assert run("generate", *words, "--out", "new.png") == 0
    assert "replaced" not in capsys.readouterr().err
    before = Path("other.png").read_bytes()
    assert run("generate", *words, "--out", "other.png") == 0
    assert capsys.readouterr().err.count(said) == 1
    assert Path("other.png").read_bytes() != before
    assert run("generate", *words, "--out", "many", "--count", 2) == 0
    assert "replaced" not in capsys.readouterr().err
    assert run("generate", *words, "--out", "many", "--count", 3) == 0
    told = "2 files exist and will be replaced: many/seed-0000.png to seed-0001.png"
    assert capsys.readouterr().err.replace("\\", "/").count(told) == 1
    assert run("toybox", "render", "--out", "other.png", "--size", 16) == 0
    assert said in capsys.readouterr().err


def test_a_replaced_generator_is_said(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("face.pkl").write_bytes(Attack(files / "canary").pkl())
    said = "face/generator.json exists and will be replaced"
    assert run("models", "convert", "face.pkl") == 0
    assert said not in capsys.readouterr().err
    assert run("models", "convert", "face.pkl") == 0
    assert said in capsys.readouterr().err.replace("\\", "/")


def test_an_empty_prompt_is_noted(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--model", tiny_folder(), "--steps", 1, "--out", "x.png")
    for prompt, told in (("", 1), ("  ", 1), ("a cat", 0)):
        assert run("generate", prompt, *words) == 0
        assert capsys.readouterr().err.count("the prompt is empty") == told


def test_a_photo_for_a_mask_is_noted(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grey = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    Image.fromarray(grey).save("grey.png")
    soft = np.asarray(Image.open("mask.png").resize((8, 8)).resize((64, 64)))
    Image.fromarray(soft).save("soft.png")
    steps = ("--steps", 1, "--inversion-steps", 1, "--model", tiny_folder())
    seen = {
        "other.png": "has colours",
        "grey.png": "is mostly grey",
        "mask.png": "",
        "soft.png": "",
    }
    for mask, told in seen.items():
        words = (*WORDS, "--to", "a photo of a dog", "--mask", mask, "--out", "e.png")
        assert run("edit", "photo.png", *words, *steps) == 0, mask
        said = capsys.readouterr().err
        assert said.count("may be a photo, not a mask") == bool(told), mask
        assert f"{mask} {told} and may be" in said or not told


def test_what_is_no_model_is_wrong_input(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.pkl").touch()
    Path("words.pt").write_text("no pickle")
    for name in ("set", "photo.png", "empty.pkl", "words.pt", "nowhere"):
        assert run("models", "check", name) == 2, name
    Path("cut.pkl").write_bytes(b"\x80\x04\x95")  # begins as a pickle: damaged
    Path("set/model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    for name in ("cut.pkl", "set", "weights.safetensors"):
        assert run("models", "check", name) == 1, name


@pytest.mark.parametrize("kind", ["swap", "dreambooth"])
def test_former_names_of_networks_are_read(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("--clip", "a/b", "--dino=c/d")
    assert run("evaluate", kind, *names, "--show-settings", "--json") == 0
    shown = capsys.readouterr().out
    assert '"clip_model": "a/b"' in shown and '"dino_model": "c/d"' in shown
    assert run("learn", "--clip", "0.5", "--show-settings", "--json") == 0  # of the gradient
    assert '"clip": 0.5' in capsys.readouterr().out
