"""Imports point backwards: a module may use only what stands before it in the reading order."""

from __future__ import annotations

import ast
import runpy
from collections.abc import Callable, Iterator
from functools import cache
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


@cache
def tree(path: Path) -> ast.Module:
    """What a file says, parsed once for all tests here."""
    return ast.parse(path.read_text())


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


# Each yields what is wrong in one file. One test a rule, not one a rule and file: 2,400 tests would
# take half a minute for nothing but their own set-up.


def misplaced(path: Path) -> Iterator[str]:
    me = room(path)
    if me == "__init__":
        return
    if me not in ORDER:
        yield f"{me} has no place in the reading order yet: give it one"
        return
    for other in rooms(imports(tree(path))) - {me}:
        if ORDER.index(other) >= ORDER.index(me):
            yield f"{me} comes before {other}"


def heavy(path: Path) -> Iterator[str]:
    if room(path) not in TORCH_FREE or str(path.relative_to(SOURCE)) in TORCH:
        return
    top = [n for n in tree(path).body if isinstance(n, ast.Import | ast.ImportFrom)]
    names = set[str]().union(*(imports(ast.Module([node], [])) for node in top))
    for name in names & {"torch", "diffusers", "transformers", "understudy.pictures.tensors"}:
        yield f"it is read at start-up: import {name} where it is used"


def long(path: Path) -> Iterator[str]:
    lines = len(path.read_text().splitlines())
    if lines > 300:
        yield f"it has {lines} lines: make two files of it"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > 60:
                yield f"{node.name} has {length} lines"


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


def strange(path: Path) -> Iterator[str]:
    for name in imports(tree(path)):
        allowed = STRANGERS.get(name.split(".")[0])
        if allowed is not None and room(path) not in allowed:
            yield f"it must not import {name}"


def unpacked(path: Path) -> Iterator[str]:
    named = {name.split(".")[0] for name in imports(tree(path))}
    for name in named & {"training", "tests", "benchmarks", "scripts"}:
        yield f"{name} is not in the wheel"


RULES = (misplaced, heavy, long, strange, unpacked)


@pytest.mark.parametrize("rule", RULES)
def test_every_file_keeps_the_rule(rule: Callable[[Path], Iterator[str]]) -> None:
    faults = [f"{path.relative_to(SOURCE)}: {told}" for path in FILES for told in rule(path)]
    assert not faults, "\n".join(faults)


def test_the_rules_find_what_they_forbid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that breaks all of them."""
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    body = "\n".join(f"    x = {n}" for n in range(300))
    file = tmp_path / "files" / "bad.py"
    file.parent.mkdir()
    file.write_text(
        f"import torch\nimport rich\nfrom understudy.cli import x\nimport tests\ndef f():\n{body}\n"
    )
    assert [len(list(rule(file))) for rule in RULES] == [1, 1, 2, 1, 1]


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
        module(path): {name for name in imports(tree(path)) if name in known}
        for path in FILES
        if path.name != "__init__.py"  # a package announces names of its own modules
    }
    while free := [name for name, needed in needs.items() if not needed & needs.keys()]:
        for name in free:
            del needs[name]
    assert not needs


MEASURES = runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "structure"))


def test_signatures_stay_short() -> None:
    """Five functions have ten parameters or more: four of compiled code, one shape of a toy."""
    assert len(MEASURES["wide_signatures"]()) <= 5


@pytest.mark.parametrize("package", MEASURES["COMMENTED"])
def test_algorithms_are_commented(package: str) -> None:
    """Comments are 5 to 15 % of the lines of the algorithms."""
    share = MEASURES["comment_share"](sorted((SOURCE / package).glob("*.py")))
    assert 0.05 <= share <= 0.15
