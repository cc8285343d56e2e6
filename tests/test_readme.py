"""The README keeps its word: every package in its tree, every command it shows, exists."""

from __future__ import annotations

import ast
import os
import re
from importlib import import_module
from pathlib import Path

import pytest

import pictures
import understudy
from test_reading_order import ORDER, room
from tiny import tiny_folder
from understudy.cli.app import app
from understudy.concept import Concept

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
SOURCE = ROOT / "src" / "understudy"


def blocks(page: str = README) -> list[str]:
    return re.findall(r"```\w*\n(.*?)```", page, flags=re.DOTALL)


def test_the_tree_names_every_room() -> None:
    (tree,) = [part for part in blocks(ARCHITECTURE) if part.startswith("src/understudy/")]
    named = set(re.findall(r"[\w.]+\.py\b|\w+/(?=\s)", tree.split("\n", 1)[1]))
    rooms = {path.name for path in SOURCE.glob("*.py")}
    rooms |= {f"{path.parent.name}/" for path in SOURCE.glob("*/__init__.py")}
    assert named - {"weights/"} == rooms


def test_the_list_of_files_is_that_of_the_docstrings() -> None:
    """docs/files.md is generated: UNDERSTUDY_FREEZE=1 writes it."""
    modules = [path for path in SOURCE.rglob("*.py") if not path.name.startswith("__")]
    modules.sort(key=lambda path: (ORDER.index(room(path)), str(path)))
    lines = ["# Every file, in import order", ""]
    lines += ["A module imports only from packages above its own; `tests/test_reading_order.py`"]
    lines += ["checks it. This page is generated from the docstrings.", ""]
    lines += ["| file | what it is |", "| --- | --- |"]
    for path in modules:
        said = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
        lines.append(f"| `{path.relative_to(SOURCE)}` | {' '.join(said.split())} |")
    page, text = ROOT / "docs/files.md", "\n".join(lines) + "\n"
    if os.environ.get("UNDERSTUDY_FREEZE"):
        page.write_text(text)
    assert page.read_text() == text


def test_commands_exist() -> None:
    known = {group.name for group in app.registered_groups}
    known |= {command.callback.__name__ for command in app.registered_commands if command.callback}
    shown = re.findall(r"^understudy (\w+)", "\n".join(blocks()), flags=re.MULTILINE)
    assert shown and set(shown) == known
    for script in re.findall(r"\./scripts/(\w+)", README):
        assert (ROOT / "scripts" / script).stat().st_mode & 0o111


def test_the_example_parses_and_names_what_exists() -> None:
    (code,) = [block for block in blocks() if block.startswith("from understudy")]
    for node in ast.parse(code).body:
        if isinstance(node, ast.ImportFrom) and node.module == "understudy":
            assert {alias.name for alias in node.names} <= set(understudy.__all__)


def test_the_example_runs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a tiny model, with fewer steps; only the learning is replaced."""
    (code,) = [block for block in blocks() if block.startswith("from understudy")]
    model = understudy.load_model(str(tiny_folder("toy")))
    noun = Concept("rex", "sks", "dog", "lora", model.name, model.base_fingerprint, {})
    monkeypatch.setattr(import_module("understudy.learn"), "learn", lambda *_, **__: noun)
    monkeypatch.setattr(understudy, "load_model", lambda name: model, raising=False)
    pictures.save(here / "rex" / "1.png")
    pictures.save(here / "photo.png")
    exec(code.replace("steps=25", "steps=2"), {})
    assert (here / "swapped.png").is_file()


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/results.md"]
)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
        assert (page.parent / link).exists() or link == "docs/demo.png", link
