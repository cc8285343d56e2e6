"""Whatever a user names instead of a file ends in one line; JSON is bounded in size and depth."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from understudy.concept.folder import read as read_concept
from understudy.drag.files import load_session
from understudy.errors import ConceptError, InputError, UnderstudyError
from understudy.files import reading
from understudy.invert.inversion import Inversion
from understudy.project.latent import Latent

LOADERS: tuple[Callable[[Path], object], ...] = (
    reading.read_bytes,
    reading.read_json,
    reading.check_regular,
    load_session,
    Inversion.load,
    Latent.load,
    lambda path: read_concept(path.parent),
)
BAD = ("fifo", "device", "circle", "folder", "long", "missing", "below a file", "empty")


def bad(folder: Path, kind: str) -> Path:
    path = folder / "concept.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "circle":
        path.symlink_to(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "long":
        return folder / ("a" * 300) / "concept.json"
    elif kind == "below a file":
        (folder / "file").write_text("")
        return folder / "file" / "concept.json"
    elif kind == "empty":
        path.write_bytes(b"")
    return path


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("loader", range(len(LOADERS)))
def test_no_file_is_one_line(tmp_path: Path, kind: str, loader: int) -> None:
    load, path = LOADERS[loader], bad(tmp_path, kind)
    if kind == "empty" and load in (reading.read_bytes, reading.check_regular):
        return
    with pytest.raises(UnderstudyError) as caught:
        load(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.json").write_text("{}")
    with monkeypatch.context() as patch:  # root may read everything, so the call is replaced
        patch.setattr(os, "stat", refuses)
        patch.setattr(os, "open", refuses)
        for load in (reading.check_regular, reading.read_bytes):
            with pytest.raises(InputError, match="no permission"):
                load(tmp_path / "a.json")


def test_sizes_and_depths_are_bounded(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"a": "[[[[\\"[[", "b": [1, {"c": null}]}')
    assert reading.read_json(file) == {"a": '[[[["[[', "b": [1, {"c": None}]}
    with pytest.raises(ConceptError, match="at most 10"):
        reading.read_json(file, most=10, error=ConceptError)
    for text, reason in {
        "[" * 65 + "]" * 65: "64 levels",
        "[" * 1_000_000: "64 levels",
        '"' + '\\"' * 500_000: "JSON",
        "1" * 5000: "JSON",
        "\ud800": "JSON",
        "": "JSON",
    }.items():
        with pytest.raises(InputError, match=f"the name.*{reason}"):
            reading.parse_json(text, "the name")
    assert reading.parse_json("[" * 64 + "]" * 64, "the name")
    with pytest.raises(InputError, match="JSON"):
        reading.parse_json(b"\xff", "the name")
    with file.open("wb") as stream:
        stream.truncate(reading.MAX_JSON + 1)
    with pytest.raises(InputError, match="at most"):
        reading.read_json(file)


SOURCE = Path(reading.__file__).parent.parent
READS = {"load", "loads", "open", "safe_open", "load_file", "read_text", "read_bytes", "fdopen"}
ALLOWED = {  # a module's own way to read, and why it needs one
    "files/reading.py": "the opener itself",
    "files/tensors.py": "safetensors; the file was checked by the opener",
    "files/atomic.py": "flushes what was written",
    "pictures/photo.py": "Pillow; the file was checked by check_is_file",
    "pictures/colour.py": "Pillow, of bytes in memory",
    "pictures/complete.py": "a picture that was checked",
    "pictures/guards.py": "a picture that was checked",
    "untrusted/checkpoint_file.py": "torch.load of weights only; the archive was checked",
    "generators/files.py": "in the child process with limits",
    "models/weight_files.py": "the header of a file that was checked",
    "models/parts.py": "tensors of a file whose header was checked",
    "files/locks.py": "locks a file; reads nothing",
    "batch/places.py": "the user's own table and pictures, local or through fsspec",
    "preflight.py": "/proc/meminfo",
    "jobs/worker.py": "messages of a process of ours, through a pipe",
    "jobs/rerun.py": "a result that this process has just written",
    "cli/doctor.py": "/proc/meminfo",
    "models/transformer/shards.py": "safetensors; weight_files checked the file and its header",
    "models/transformer/single_file_parts.py": "safetensors; likewise",
    "studio/database.py": "rows that the studio has written",
    "studio/drag_routes.py": "messages of a process of ours, through a pipe",
    "studio/drag_session.py": "messages of a process of ours, through a pipe",
    "studio/drag_worker.py": "messages of a process of ours, through a pipe",
    "evaluate/study/server.py": "the page of the package itself",
}


def reads(tree: ast.AST) -> set[str]:
    """The calls of a module that open or parse a file on their own."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
        owner = called.value.id if _named(called) else ""
        ours = name in ("read_bytes", "read_json") and isinstance(called, ast.Name)
        loads = name in ("load", "loads") and owner not in (
            "json",
            "torch",
            "np",
            "numpy",
            "tomllib",
        )
        mode = next((a.value for a in node.args if isinstance(a, ast.Constant)), "r")
        writes = name == "open" and isinstance(mode, str) and mode[:1] in "aw"
        if name in READS and not (ours or loads or writes):
            found.add(f"{owner}.{name}" if owner else name)
    return found


def _named(called: ast.expr) -> bool:
    return isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name)


def test_every_file_is_read_through_the_opener() -> None:
    for path in sorted(SOURCE.rglob("*.py")):
        place, found = str(path.relative_to(SOURCE)), reads(ast.parse(path.read_text()))
        assert not found or place in ALLOWED, f"{place} calls {sorted(found)}: use files.reading"


def test_the_rule_sees_what_it_is_to_see() -> None:
    for text in (
        "json.loads(x)", "json.load(x)", "open(x)", "x.open('rb')", "x.read_text()",
        "x.read_bytes()", "torch.load(x)", "safe_open(x, 'pt')", "load_file(x)", "Image.open(x)",
    ):  # fmt: skip
        assert reads(ast.parse(text)), text
    for text in ("read_json(x)", "read_bytes(x)", "Latent.load(x)", "x.open('ab+')", "x.write(y)"):
        assert not reads(ast.parse(text)), text


def test_hashes_and_first_bytes_go_through_the_opener(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abcdef")
    assert reading.first_bytes(tmp_path / "a", 3) == b"abc"
    assert reading.sha256(tmp_path / "a").startswith("bef57ec7f53a6d40beb640a780a639c83bc29ac8")
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), tmp_path / "none"):
        for read in (reading.sha256, lambda file: reading.first_bytes(file, 3)):
            with pytest.raises(InputError):
                read(place)
