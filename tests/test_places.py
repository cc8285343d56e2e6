"""Names that are too long and folders without permission: one line, exit 1 or 2, wherever."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import pictures
from understudy import cli
from understudy.errors import ModelError, PictureError
from understudy.models import registry
from understudy.pictures import folders, photo

LONG = "a" * 300
SWAP = ("--prompt", "a photo of a cat", "--swap", "cat=rex")
COMMANDS: dict[str, tuple[str, ...]] = {
    "photo of swap": ("swap", "{}", *SWAP),
    "photo of invert": ("invert", "{}", "--prompt", "a cat"),
    "photos of learn": ("learn", "{}", "--class", "cat", "--name", "rex"),
    "check": ("check", "{}"),
    "--model": ("generate", "a cat", "--model", "{}"),
    "--concept": ("generate", "a {{rex}}", "--concept", "{}"),
    "--generator": ("drag", "--seed", "1", "--points", "1,1>5,5", "--generator", "{}"),
    "--latent": ("drag", "--points", "1,1>5,5", "--latent", "{}"),
    "--out of toybox": ("toybox", "render", "--size", "32", "--out", "{}.png"),
    "--out of generate": ("generate", "a cat", "--steps", "1", "--out", "{}/a.png"),
    "models list": ("models", "list", "{}"),
    "models check": ("models", "check", "{}"),
    "models convert": ("models", "convert", "{}", "--out", "b"),
    "concept show": ("concept", "show", "{}"),
    "study": ("evaluate", "study", "tally", "{}"),
    "cases": ("evaluate", "cases", "--out", "{}/b"),
    "dreambooth": ("evaluate", "dreambooth", "{}"),
}


def one_line(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], place: str) -> str:
    capsys.readouterr()
    code = cli.main([word.format(place) for word in words])
    told = capsys.readouterr()
    assert code in (1, 2), told
    assert len(told.err.splitlines()) == 1 and "this is a bug" not in told.err, told.err
    return told.err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_is_too_long(
    here: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    one_line(capsys, COMMANDS[command], LONG)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_without_permission(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Root may enter every folder, so the system's answers are replaced."""
    pictures.save(here / "shut" / "inner" / "a.png")
    real = {name: getattr(os, name) for name in ("stat", "open", "scandir", "listdir", "mkdir")}

    def answers(name: str) -> object:
        def call(path: object, *words: object, **named: object) -> object:
            shut = isinstance(path, str | os.PathLike) and "shut/inner" in str(path)
            if shut:
                raise PermissionError(13, "Permission denied", str(path))
            return real[name](path, *words, **named)

        return call

    with monkeypatch.context() as patch:
        for name in real:
            patch.setattr(os, name, answers(name))
        words = tuple(word.format(str(here / "shut" / "inner" / "x")) for word in COMMANDS[command])
        capsys.readouterr()
        code = cli.main(list(words))
    told = capsys.readouterr()
    assert code in (1, 2), told
    assert len(told.err.splitlines()) == 1 and "this is a bug" not in told.err, told.err


def test_the_library_says_it_too() -> None:
    for read, kind in (
        (photo.read_photo, PictureError),
        (folders.list_folder, PictureError),
        (registry.find, ModelError),
        (registry.generator_folder, ModelError),
    ):
        with pytest.raises(kind, match="too long"):
            read(LONG)
