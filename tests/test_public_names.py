"""The public surface: sorted, complete, lazily imported, and the same for type checkers."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import understudy

SOURCE = Path(understudy.__file__).parent
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


# Former names: one word for one thing, and the literature's where there is one.
FORMER = set(
    "audition auditions casting lesson lessons bank team pupil journal stirring stirred waves worn "
    "wear mixes front judge ruler actor dressed".split()
)


def words_of(name: str) -> set[str]:
    """ "moving_ws" -> moving, ws; "SwapStep" -> swap, step."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


@pytest.mark.parametrize("package", sorted(p.name for p in SOURCE.iterdir() if p.is_dir()))
def test_no_former_name_is_public(package: str) -> None:
    """Classes, functions, their parameters, and fields; the toy world has eyes with pupils."""
    allowed = {"toybox": {"pupil", "front"}, "batch": {"actor"}, "evaluate": {"actor"}}
    for path in sorted((SOURCE / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.ClassDef):
                names = [node.name]
            elif isinstance(node, ast.FunctionDef):
                args = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                names = [node.name, *(one.arg for one in args)]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names = [node.target.id]
            for name in names:
                found = words_of(name) & (FORMER - allowed.get(package, set()))
                assert not found, f"{path.name}: {name}"


def test_no_former_name_is_in_the_help() -> None:
    text = (SOURCE.parent.parent / "docs" / "cli.txt").read_text()
    found = set(re.findall(r"[a-z]+", text.lower())) & (FORMER - {"front"})
    assert not found
