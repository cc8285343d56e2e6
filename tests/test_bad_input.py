"""Bad input through the command line: one line, the right exit code, nothing half-written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pictures
from tiny import tiny_folder
from understudy import cli
from understudy.pictures.photo import read_photo

PROMPT = ("--prompt", "a photo of a cat")


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def refused(
    capsys: pytest.CaptureFixture[str], code: int, *words: object, naming: str | Path
) -> str:
    """Run a command that must fail in one line naming what is wrong, and leave no file behind."""
    before = sorted(Path().rglob("*"))
    capsys.readouterr()  # what making a model's folder said
    assert run(*words) == code
    caught = capsys.readouterr()
    progress = (" took ", " s left", "note: editing the region")
    error = [line for line in caught.err.splitlines() if not any(p in line for p in progress)]
    assert len(error) == 1, caught.err
    assert error[0].startswith("understudy: ") and str(naming) in error[0], error[0]
    assert "Traceback" not in caught.err and "bug" not in error[0]
    assert caught.out == ""
    assert sorted(Path().rglob("*")) == before
    return error[0]


def no_picture(path: Path) -> Path:
    path.write_text("I am no picture")
    return path


def empty(path: Path) -> Path:
    path.touch()
    return path


BAD_PHOTOS: dict[str, Callable[[Path], Path]] = {
    "missing": lambda folder: folder / "nowhere.png",
    "not an image": lambda folder: no_picture(folder / "a.png"),
    "empty": lambda folder: empty(folder / "a.png"),
    "truncated jpeg": lambda folder: pictures.truncated(folder / "a.jpg"),
    "one pixel": lambda folder: pictures.save(folder / "a.png", np.zeros((1, 1, 3), np.uint8)),
    "bomb": lambda folder: pictures.bomb(folder / "a.png"),
    "a folder": lambda folder: folder,
}


@pytest.mark.parametrize("kind", BAD_PHOTOS)
def test_bad_photos(here: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    photo = BAD_PHOTOS[kind](here)
    refused(capsys, 2, "invert", photo, *PROMPT, naming=photo)
    refused(capsys, 2, "swap", photo, *PROMPT, "--swap", "cat=rex", naming=photo)


@pytest.mark.parametrize("kind", ["truncated jpeg", "one pixel", "bomb"])
def test_one_bad_photo_among_good_ones(
    here: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    pictures.save(here / "photos" / "good.png")
    bad = BAD_PHOTOS[kind](here / "photos")
    model = ("--model", tiny_folder("toy"))
    words = ("learn", "photos", "--class", "cat", "--name", "rex", *model)
    refused(capsys, 2, *words, naming=bad.name)


@pytest.mark.parametrize("kind", ["no pictures", "missing", "a file"])
def test_folders_that_hold_no_photos(
    here: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    folder = here / "photos"
    if kind == "no pictures":
        folder.mkdir()
        (folder / "notes.txt").write_text("x")
    if kind == "a file":
        folder.write_text("x")
    refused(capsys, 2, "learn", folder, "--class", "cat", "--name", "rex", naming=folder)


def cmyk(path: Path) -> Path:
    Image.fromarray(pictures.gradient(64, 64)).convert("CMYK").save(path)
    return path


def see_through(path: Path) -> Path:
    pixels = np.dstack([pictures.gradient(64, 64), np.full((64, 64), 100, np.uint8)])
    return pictures.save(path, pixels)


ODD_PHOTOS: dict[str, Callable[[Path], Path]] = {
    "cmyk": lambda folder: cmyk(folder / "a.jpg"),
    "sixteen bits": lambda folder: pictures.grey16(folder / "a.png"),
    "exif-rotated": lambda folder: pictures.rotated(folder / "a.png", 6, pictures.gradient()),
    "alpha": lambda folder: see_through(folder / "a.png"),
}


@pytest.mark.parametrize("kind", ODD_PHOTOS)
def test_odd_photos_are_taken(here: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    photo = ODD_PHOTOS[kind](here)
    how = ("--method", "ddim", "--steps", 2, "--model", tiny_folder("toy"))
    assert run("invert", photo, *PROMPT, *how) == 0, capsys.readouterr().err
    assert (here / "a.inversion.safetensors").exists()


def test_unknown_things_are_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = pictures.save(here / "a.png")
    generate = ("generate", "a photo of a cat")
    refused(capsys, 2, *generate, "--model", "nosuch", naming="nosuch")
    refused(capsys, 2, *generate, "--concept", "rex", naming="rex")
    refused(capsys, 2, "generate", "a photo of {rex}", naming="{rex}")
    refused(capsys, 2, *generate, "--steps", 0, naming="--steps")
    refused(capsys, 2, *generate, "--steps", "many", naming="--steps")
    refused(capsys, 2, *generate, "--guidance", "nan", naming="--guidance")
    refused(capsys, 2, *generate, "--count", 0, naming="--count")
    refused(capsys, 2, *generate, "--seed", -1, naming="--seed")
    refused(capsys, 2, *generate, "--device", "abacus", naming="abacus")
    refused(capsys, 2, *generate, "--dtype", "float3", naming="--dtype")
    refused(capsys, 2, *generate, "--stepz", 3, naming="--stepz")
    refused(capsys, 2, "generat", naming="generat")
    refused(capsys, 2, "invert", photo, *PROMPT, "--method", "magic", naming="--method")
    refused(capsys, 2, "swap", photo, *PROMPT, "--swap", "dog=rex", naming="dog")
    refused(capsys, 2, "swap", photo, *PROMPT, "--swap", "cat", naming="--swap")
    refused(capsys, 2, "swap", photo, *PROMPT, naming="--swap")
    refused(capsys, 2, "swap", photo, *PROMPT, "--swap", "cat=rex", naming="rex")
    drag = ("drag", "--seed", 3, "--points", "1,1>2,2")
    refused(capsys, 2, *drag, "--generator", "nosuch", naming="no generator 'nosuch'")
    refused(capsys, 2, "models", "convert", "nosuch.pkl", naming="no file nosuch.pkl")
    refused(capsys, 2, "models", "check", "nosuch", naming="nosuch")
    refused(capsys, 2, "evaluate", "dreambooth", "nosuch", naming="no folder nosuch")
    refused(capsys, 2, "evaluate", "swap", "nosuch", naming="no folder nosuch")
    refused(capsys, 2, *"concept export toby --to kohya --out a.safetensors --rank 0".split(),
            naming="--rank must be at least 1")  # fmt: skip
    refused(capsys, 2, "toybox", "render", "--size", 3, naming="--size")


def test_prompts_over_the_limit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "a photo of a cat on the beach " * 9
    model = ("--model", tiny_folder("toy"))
    photo = pictures.save(here / "a.png")
    told = refused(capsys, 2, "invert", photo, "--prompt", long, *model, naming="tokens")
    assert "at most 22" in told


def test_concepts_that_are_damaged(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = here / "concepts" / "rex"
    folder.mkdir(parents=True)
    (folder / "concept.json").write_text("{")
    refused(capsys, 1, "generate", "{rex}", "--concept", "rex", naming="concept.json")


OUTPUTS = {
    "toybox render": ("toybox", "render", "--size", "32"),
    "generate": ("generate", "a photo of a cat", "--steps", "2"),
}


@pytest.mark.parametrize("command", OUTPUTS)
def test_outputs_that_cannot_be(
    here: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    model = () if command == "toybox render" else ("--model", tiny_folder("toy"))
    words = (*OUTPUTS[command], *model, "--out")
    (here / "file").touch()
    (here / "folder.png").mkdir()
    refused(capsys, 1, *words, here / "file" / "a.png", naming="not a folder")
    refused(capsys, 1, *words, here / "folder.png", naming="is a folder")
    if command == "toybox render":
        refused(capsys, 2, *words, here / "a.bmp", naming="a.bmp")


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize("command", OUTPUTS)
def test_read_only_and_full_disks(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    code: int,
) -> None:
    model = () if command == "toybox render" else ("--model", tiny_folder("toy"))
    if not model:  # compiled code is kept by os.replace, too: once it is there, nothing else is
        assert run(*OUTPUTS[command], "--out", here / "before.png") == 0

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", fail)
    words = (*OUTPUTS[command], *model, "--out", here / "a.png")
    refused(capsys, 1, *words, naming=here / "a.png")


def test_a_whole_process_fails_in_one_line(here: Path) -> None:
    for words, code in (
        (["invert", "nowhere.png", *PROMPT], 2),
        (["toybox", "render", "--out", "/proc/nowhere/a.png"], 1),
        (["nosuch"], 2),
    ):
        ran = subprocess.run(
            [sys.executable, "-m", "understudy.cli", *words], capture_output=True, text=True
        )
        assert ran.returncode == code, ran.stderr
        assert len(ran.stderr.splitlines()) == 1 and ran.stdout == ""
    assert not list(here.iterdir())


def test_a_closed_pipe_is_no_error(here: Path) -> None:
    command = f"{sys.executable} -m understudy.cli models list | head -1"
    ran = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert ran.stderr == "" and len(ran.stdout.splitlines()) == 1


def test_names_with_odd_letters(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("å 日本 emoji 🦊.png", "-dash.png", "new\nline.png"):
        out = here / name
        assert run("toybox", "render", "--size", 32, "--out", out) == 0, capsys.readouterr().err
        assert read_photo(out).size == (32, 32)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("drag --seed abc", "--seed must be a whole number. Got 'abc'."),
        ("toybox render --seed 1.5", "--seed must be a whole number. Got '1.5'."),
        ("toybox render --seed -1", "--seed must be at least 0. Got -1."),
        ("toybox render --size 5000", "--size must be at most 2048. Got 5000."),
        ("generate cat --guidance high", "--guidance must be a number. Got 'high'."),
        (
            "swap a.png --prompt cat --swap cat=toby --self-map-steps x",
            "--self-map-steps: expected a count like 20 or a share like 0.4. Got 'x'.",
        ),
        (
            "generate a photo of rex",
            "Unexpected: photo of rex. Text of several words must be in quotes. "
            "See understudy generate --help.",
        ),
        ("learn rex --class dog", "Missing option '--name'. See understudy learn --help."),
        ("check", "Missing argument 'photos'. See understudy check --help."),
        ("lern", "No such command 'lern'. Did you mean 'learn', 'rerun'?"),
    ],
)
def test_the_parser_says_what_was_wanted_and_what_came(
    here: Path, capsys: pytest.CaptureFixture[str], words: str, told: str
) -> None:
    line = refused(capsys, 2, *words.split(), naming=told)
    assert line == f"understudy: {told}"


def test_files_without_permission(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = pictures.save(here / "a.png")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    told = f"{photo} may not be read. Change its permissions."
    refused(capsys, 2, "invert", photo, *PROMPT, naming=told)
