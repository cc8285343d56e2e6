"""A full disk: one line and exit code 1 for results; a full cache never fails a command."""

from __future__ import annotations

import builtins
import errno
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

import pictures
from tiny import tiny_folder
from understudy import cli

Fill = Callable[[Path], None]
LEARN = (
    "learn photos --class cat --name rex --method lora --rank 2 --steps 2 --prior-samples 2 "
    "--prior-steps 1 --out out/rex"
)
COMMANDS = {
    "learn": LEARN,
    "generate": "generate cat --steps 2 --out out/a.png",
    "invert": "invert photos/0.png --prompt cat --steps 2 --out out/a.safetensors",
    "edit": "edit photos/0.png --prompt cat --to dog --steps 2 --out out/a.png",
    "swap": "swap photos/0.png --prompt cat --swap cat=rex --steps 2 --preset paper "
    "--out out/a.png",
    "explain": "explain photos/0.png --prompt cat --steps 2 --out out/a.png",
    "sweep": "sweep photos/0.png --prompt cat --swap cat=rex --steps 2 --vary self-output=0,1 "
    "--preset paper --out out/a.png",
    "render": "toybox render --seed 1 --size 64 --out out/a.png",
    "export": "concept export rex --to kohya --out out/a.safetensors",
    "copy": "concept export rex --to folder --out out/copy",
}
MODELLESS = ("render",)


@pytest.fixture
def fill(monkeypatch: pytest.MonkeyPatch) -> Fill:
    """A function that makes the disk of a folder full: files can be made, but hold nothing."""

    def fill(folder: Path) -> None:
        def inside(path: object) -> bool:
            return isinstance(path, str | Path) and folder in Path(path).absolute().parents

        before = io.open

        def opened(file: object, mode: str = "r", *rest: object, **more: object) -> object:
            if set(mode) & set("wax+") and inside(file):
                before(file, mode, *rest, **more).close()  # type: ignore[call-overload]
                raise OSError(errno.ENOSPC, "No space left on device")
            return before(file, mode, *rest, **more)  # type: ignore[call-overload]

        def saved(tensors: object, path: Path, notes: object = None) -> None:
            if inside(path):
                Path(path).touch()
                raise SafetensorError("I/O error: No space left on device (os error 28)")
            save(tensors, path, notes)  # type: ignore[arg-type]

        from understudy.files import tensors

        save = tensors.save_file
        monkeypatch.setattr(builtins, "open", opened)
        monkeypatch.setattr(io, "open", opened)
        monkeypatch.setattr(tensors, "save_file", saved)

    return fill


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, and a concept in concepts/rex."""
    folder = tmp_path_factory.mktemp("start")
    for number in range(2):
        pictures.save(folder / f"photos/{number}.png", pictures.gradient(80, 90))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert ran("learn", "concepts/rex") == 0
    return folder


def ran(name: str, out: str = "out/rex") -> int:
    words = COMMANDS[name].replace("out/rex", out).split()
    return cli.main(words if name in MODELLESS else [*words, "--model", str(tiny_folder("toy"))])


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    name: str, start: Path, fill: Fill, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    (tmp_path / "photos").symlink_to(start / "photos")
    (tmp_path / "concepts").symlink_to(start / "concepts")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out")
    assert ran(name) == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("understudy: Cannot write ") and "disk is full" in line
    assert ".partial" not in line
    left = [path for path in (tmp_path / "out").rglob("*") if name != "learn" or path.is_file()]
    assert [path.name for path in left if not path.name.startswith(".run")] == []


@pytest.mark.parametrize("name", [n for n in COMMANDS if n not in ("render", "export", "copy")])
def test_a_full_cache_fails_nothing(
    name: str, start: Path, cache: Path, fill: Fill, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    (tmp_path / "photos").symlink_to(start / "photos")
    (tmp_path / "concepts").symlink_to(start / "concepts")
    monkeypatch.chdir(tmp_path)
    fill(cache)
    assert ran(name) == 0, capsys.readouterr().err
    assert any((tmp_path / "out").iterdir())
    whole = [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert whole == []
