"""Whatever a user names instead of a file ends in one line; JSON is bounded in size and depth."""

from __future__ import annotations

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
