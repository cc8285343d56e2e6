"""The public surface: sorted, complete, lazily imported, and the same for type checkers."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import understudy

VERBS = ("generate", "learn", "invert", "swap", "edit", "project", "drag")


def test_names_are_sorted_and_exist() -> None:
    assert understudy.__all__ == sorted(understudy.__all__)
    assert len(set(understudy.__all__)) == len(understudy.__all__)
    for name in understudy.__all__:
        assert getattr(understudy, name) is not None
    assert dir(understudy) == understudy.__all__
    with pytest.raises(AttributeError, match="nonsense"):
        _ = understudy.nonsense  # type: ignore[attr-defined]


def test_what_is_imported_is_what_is_announced() -> None:
    tree = ast.parse(Path(understudy.__file__).read_text())
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("understudy."):
            room = str(node.module).removeprefix("understudy.")
            imported |= {a.asname or a.name: f"{room}.{a.name}" for a in node.names}
    assert sorted(imported) == understudy.__all__
    lazy = understudy._LAZY
    assert list(lazy) == sorted(lazy)
    assert {name: imported[name] for name in lazy} == lazy


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_module_of_its_name(verb: str) -> None:
    function = getattr(import_module(f"understudy.{verb}"), verb)
    assert callable(function) and function.__doc__


def test_importing_is_light() -> None:
    code = "import understudy, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"torch", "numpy", "PIL", "diffusers", "typer"} & set(loaded)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from understudy.cli import main; main(['swap', '--help']); print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"torch", "numpy", "PIL", "diffusers", "jaxtyping"} & set(loaded)


def test_modules_are_described() -> None:
    source = Path(understudy.__file__).parent
    bare = [
        str(path.relative_to(source))
        for path in sorted(source.rglob("*.py"))
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not bare
