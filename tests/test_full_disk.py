"""A full disk: one line and exit code 1 for results; a full cache never fails a command."""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

import pictures
import test_study
import test_swapbench
from hostile import Attack
from test_single_file import beside_a_tokenizer
from test_stylegan2 import small
from tiny import tiny_folder
from understudy import cli
from understudy.evaluate.dreambench import write_toy_set
from understudy.evaluate.study.questions import make
from understudy.evaluate.study.server import VOTES
from understudy.evaluate.study.votes import Votes
from understudy.generators.folder import save_generator
from understudy.settings.evaluate import StudySettings

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
    "mask": "mask photos/0.png --select 5,5,40,40 --out out/a.png",
    "rerun": f"rerun made.png --out out/a.png --inputs {tiny_folder('toy').parent}",
    "render": "toybox render --seed 1 --size 64 --out out/a.png",
    "export": "concept export rex --to kohya --out out/a.safetensors",
    "copy": "concept export rex --to folder --out out/copy",
    "project": "project photos/0.png --generator gan --steps 1 --tune-steps 1 "
    "--out out/a.latent.safetensors --picture out/a.png",
    "drag": "drag --seed 3 --generator gan --points 5,5>9,5 --steps 1 --out out/a.png",
    "session": "drag --seed 3 --generator gan --points 5,5>9,5 --steps 1 --out a.png "
    "--save out/a.session",
    "film": "drag --seed 3 --generator gan --points 5,5>9,5 --steps 1 --out a.png --film out/a.gif",
    "demo": "demo --photos 2 --learn-steps 1 --prior-samples 0 --steps 1 --out out",
    "evaluate swap": "evaluate swap --limit 1 --side 64 --methods no-swap --out out",
    "evaluate cases": "evaluate cases --limit 1 --side 64 --out out",
    "evaluate dreambooth": "evaluate dreambooth set --limit 1 --pictures 1 --plain-pictures 2 "
    "--set generate.steps=1 --scorer toys --methods untuned --out out",
    "evaluate drag": "evaluate drag --generator gan --pairs 1 --points 1 --steps 1 --out out",
    "toys": "evaluate dreambooth toybox --subjects 1 --scorer toys --out out",
    "study": "evaluate study make results --out out",
    "tally": "evaluate study tally out",
    "subject": "toybox subject --seed 1 --photos 1 --size 64 --out out",
    "truth": "toybox render --seed 1 --size 64 --truth --out out/a.png",
    "convert": "models convert face.pkl --out out/face",
    "convert diffusion": "models convert whole.safetensors --out out/whole",
    "import": "concept import photos.lora.safetensors --identifier sks --out out/rex",
}
CACHED = ("learn", "generate", "invert", "edit", "swap", "explain", "sweep")
MODELLESS = (
    "rerun", "render", "project", "drag", "session", "film", "evaluate swap", "evaluate cases",
    "evaluate drag", "study", "tally", "subject", "truth", "convert", "convert diffusion",
)  # fmt: skip


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
    """What the commands read: photos, a concept in concepts/rex, and files of every kind."""
    folder = tmp_path_factory.mktemp("start")
    for number in range(2):
        pictures.save(folder / f"photos/{number}.png", pictures.gradient(80, 90))
    gan = small()
    save_generator(folder / "gan", gan.config, gan.state_dict())
    write_toy_set(folder / "set", 1, 32)
    test_swapbench.run(folder / "results", ["no-swap", "copy-paste"], limit=1)
    asked = make(folder / "study", test_study.toys(), test_study.TASKS, StudySettings())
    test_study.answered(Votes(folder / "study" / VOTES, asked), test_study.wanders(0))
    (folder / "face.pkl").write_bytes(Attack(folder / "canary").pkl())
    beside_a_tokenizer(folder, "sd15", "whole.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert ran("learn", "concepts/rex") == 0
        words = "concept export rex --to lora --out photos.lora.safetensors --model"
        assert cli.main([*words.split(), str(tiny_folder("toy"))]) == 0
        words = "generate cat --steps 2 --out made.png --model"
        assert cli.main([*words.split(), str(tiny_folder("toy"))]) == 0
    return folder


def ran(name: str, out: str = "out/rex") -> int:
    words = COMMANDS[name].replace("out/rex", out).split()
    return cli.main(words if name in MODELLESS else [*words, "--model", str(tiny_folder("toy"))])


def quick(names: Iterable[str]) -> list[Any]:
    """The names, those of LONG as slow tests."""
    return [pytest.param(one, marks=pytest.mark.slow) if one in LONG else one for one in names]


LONG = (
    "sweep",
    "demo",
    "edit",
    "invert",
    "explain",
)  # minutes together; swap stands for them in CI


@pytest.mark.parametrize("name", quick(COMMANDS))
def test_a_full_disk_is_one_line_and_leaves_nothing(
    name: str, start: Path, fill: Fill, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    for path in start.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    if name == "tally":
        shutil.copytree(start / "study", out)
    out.mkdir(exist_ok=True)
    before = sorted(out.rglob("*"))
    fill(out)
    assert ran(name) == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("understudy: Cannot write ") and "disk is full" in line
    assert ".partial" not in line
    # Folders may have been made, and the file that claims a run; no file of a result.
    left = [path for path in sorted(out.rglob("*")) if path.is_file() and path not in before]
    assert [path.name for path in left if not path.name.startswith(".run")] == []


@pytest.mark.parametrize("name", quick(CACHED))
def test_a_full_cache_fails_nothing(
    name: str, start: Path, cache: Path, fill: Fill, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    for path in start.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    fill(cache)
    assert ran(name) == 0, capsys.readouterr().err
    assert any((tmp_path / "out").iterdir())
    whole = [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]
    whole = [path for path in whole if path.name not in (".lock", ".total")]
    assert whole == []


# A real disk


@pytest.fixture
def disk() -> Iterator[Fill]:
    """A function that makes a folder a disk of its own (tmpfs) with one free page of 4 KB."""
    mounted: list[Path] = []

    def mount(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        held = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        words = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
            pytest.skip("only root can mount a small disk")
        mounted.append(folder)
        for name, data in held.items():
            (folder / name).write_bytes(data)
        with suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        os.truncate(folder / "filler", os.stat(folder / "filler").st_size - 4096)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_small_disk_is_one_line(
    name: str, start: Path, disk: Fill, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    for path in start.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    if name == "tally":
        shutil.copytree(start / "study", tmp_path / "out")
    disk(tmp_path / "out")
    assert ran(name) == 1
    *_, line = capsys.readouterr().err.splitlines()
    if name == "tally":  # reads its votes first, and SQLite wants to write beside them
        assert line == "understudy: out/votes.sqlite cannot be used: disk I/O error."
    else:
        assert line.startswith("understudy: Cannot write ") and "disk is full" in line
    assert not list((tmp_path / "out").rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CACHED)
def test_a_small_disk_for_the_cache_fails_nothing(
    name: str, start: Path, cache: Path, disk: Fill, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    for path in start.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    disk(cache)
    assert ran(name) == 0, capsys.readouterr().err
    assert any((tmp_path / "out").iterdir()) and not list(cache.rglob("*.partial"))
