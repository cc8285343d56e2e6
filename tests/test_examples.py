"""Every example runs, is short, and leaves the pictures it promises; here on a tiny model."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

import pictures
from tests.test_project import tiny as tiny_generator
from tiny import tiny_folder
from understudy.generators.folder import save_generator
from understudy.pictures.photo import read_photo

EXAMPLES = Path(__file__).parent.parent / "examples"
FILES = sorted(EXAMPLES.glob("*.py"))


def run(name: str, **how: object) -> None:
    runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](**how)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_examples_fit_a_screen(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 40
    assert f"def test_{path.stem}(" in Path(__file__).read_text(), "no test runs it"


def test_toybox(tmp_path: Path) -> None:
    run("toybox", out=tmp_path)
    assert read_photo(tmp_path / "toybox.png").size[1] > 380


def test_generate(tmp_path: Path) -> None:
    run("generate", out=tmp_path, model=str(tiny_folder("toy")), steps=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["generated-0.png", "generated-1.png"]


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the example of learning wrote."""
    folder = tmp_path_factory.mktemp("learnt")
    run("learn", out=folder, model=str(tiny_folder("toy")), steps=2, sampling=2)
    return folder


def test_learn(learnt: Path) -> None:
    assert (learnt / "rex" / "concept.json").exists()
    assert read_photo(learnt / "rex-on-the-beach.png").size == (64, 64)


def test_swap(learnt: Path, tmp_path: Path) -> None:
    model = str(tiny_folder("toy"))
    run("swap", concept=learnt / "rex", out=tmp_path, model=model, steps=2)
    assert read_photo(tmp_path / "swapped.png").size == (64, 64)


def test_edit(tmp_path: Path) -> None:
    run("edit", out=tmp_path, model=str(tiny_folder("toy")), steps=2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["edited-0.png", "edited-1.png", "edited-2.png", "source.png"]


def test_one_photo(tmp_path: Path) -> None:
    run("one_photo", out=tmp_path, model=str(tiny_folder("toy")), steps=2, sampling=2)
    assert (tmp_path / "rex" / "concept.json").exists()
    assert read_photo(tmp_path / "rex-in-the-snow.png").size == (64, 64)


def test_project(tmp_path: Path) -> None:
    model = tiny_generator()
    save_generator(tmp_path / "generator", model.config, model.state_dict())
    photo = pictures.save(tmp_path / "face.png", pictures.gradient(40, 40))
    how = {"generator": tmp_path / "generator", "out": tmp_path, "steps": 2, "tune_steps": 2}
    run("project", photo=photo, **how)
    assert read_photo(tmp_path / "drawn.png").size == (16, 16)
