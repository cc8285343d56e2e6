"""Imports point backwards: a module may use only what stands before it in the reading order."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "understudy"
ORDER = (
    "_version errors files settings pictures toybox device_copies cuda_graphs attention untrusted "
    "diffusion models generators preflight vision concept masks generate invert learn transfer "
    "swap edit project drag jobs evaluate demo demo_job evaluate_job batch studio cli __main__"
).split()
# `pictures.tensors` is the one door to tensors; the toy world and the settings stay free of torch.
TORCH_FREE = "_version errors files settings pictures toybox preflight studio cli".split()
TORCH = {
    "files/tensors.py",
    "pictures/tensors.py",
    "pictures/paste.py",
    "pictures/membrane.py",
    "pictures/tone.py",
    "pictures/metrics.py",
}
TORCH |= {"studio/drag_live.py", "studio/drag_worker.py"}  # a process of its own
FILES = sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    """The first name below the package: a module or a folder of modules."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> set[str]:
    """Every module named by an import statement; `from a import b` counts as a and a.b."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports are absolute"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms(names: set[str]) -> set[str]:
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "understudy" and len(part) > 1} & set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_backwards(path: Path) -> None:
    me = room(path)
    if me == "__init__":
        return
    assert me in ORDER, f"{me} has no place in the reading order yet: give it one"
    for other in rooms(imports(ast.parse(path.read_text()))) - {me}:
        assert ORDER.index(other) < ORDER.index(me), f"{me} comes before {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_torch_free_rooms(path: Path) -> None:
    if room(path) not in TORCH_FREE or str(path.relative_to(SOURCE)) in TORCH:
        return
    top = [
        n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Import | ast.ImportFrom)
    ]
    names = set().union(*(imports(ast.Module([node], [])) for node in top))
    heavy = {"torch", "diffusers", "transformers", "understudy.pictures.tensors"}
    assert not names & heavy, f"{path.name} is read at start-up: import those where they are used"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_budgets(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 300, f"{path.name} has {len(lines)} lines: make two files of it"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{path.name}: {node.name} has {length} lines"


STRANGERS = {  # foreign library: the packages that may know it
    "diffusers": {"models"},
    "transformers": {"models", "vision"},
    "PIL": {"pictures", "drag"},
    "imageio_ffmpeg": {"drag"},
    "typer": {"cli"},
    "rich": {"cli"},
    "numba": {"toybox"},
    "peft": {"learn"},
    "bitsandbytes": {"learn"},
    "filelock": {"learn", "studio"},
    "dlib": {"project"},
    "torchvision": {"drag"},
    "lpips": {"vision"},
    "ray": {"batch"},
    "pyarrow": {"batch"},
    "fsspec": {"batch"},
    "c2pa": {"pictures"},
    "cryptography": {"pictures"},
    "fastapi": {"studio"},
    "starlette": {"studio"},
    "uvicorn": {"studio"},
    "pydantic": {"studio"},
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_strangers_stay_at_the_door(path: Path) -> None:
    for name in imports(ast.parse(path.read_text())):
        allowed = STRANGERS.get(name.split(".")[0])
        assert allowed is None or room(path) in allowed, f"{path.name} must not import {name}"


def test_every_room_is_listed_once_and_exists() -> None:
    assert len(ORDER) == len(set(ORDER))
    there = {room(path) for path in FILES} - {"__init__"}
    assert there == set(ORDER)


def module(path: Path) -> str:
    """understudy.drag.session of src/understudy/drag/session.py; a package for its __init__."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports within functions count, too: modules are removed that no remaining one needs."""
    known = {module(path) for path in FILES}
    needs = {
        module(path): {name for name in imports(ast.parse(path.read_text())) if name in known}
        for path in FILES
        if path.name != "__init__.py"  # a package announces names of its own modules
    }
    while free := [name for name, needed in needs.items() if not needed & needs.keys()]:
        for name in free:
            del needs[name]
    assert not needs


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_the_package_imports_nothing_that_the_wheel_lacks(path: Path) -> None:
    named = {name.split(".")[0] for name in imports(ast.parse(path.read_text()))}
    assert not named & {"training", "tests", "benchmarks", "scripts"}


MEASURES = runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "structure"))


def test_signatures_stay_short() -> None:
    """Five functions have ten parameters or more: four of compiled code, one shape of a toy."""
    assert len(MEASURES["wide_signatures"]()) <= 5


@pytest.mark.parametrize("package", MEASURES["COMMENTED"])
def test_algorithms_are_commented(package: str) -> None:
    """Comments are 5 to 15 % of the lines of the algorithms."""
    share = MEASURES["comment_share"](sorted((SOURCE / package).glob("*.py")))
    assert 0.05 <= share <= 0.15
