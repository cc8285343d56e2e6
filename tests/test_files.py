"""Results appear whole or not at all, whatever the disk does."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from understudy.errors import OutputError
from understudy.files import atomic, tensors

FAULTS = {errno.ENOSPC: "full", errno.EROFS: "read-only", errno.EACCES: "permission"}


def everything(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.rglob("*"))


def test_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    for text in ("first", "second"):
        with atomic.replacing(path) as temporary:
            temporary.write_text(text)
        assert path.read_text() == text
    assert everything(tmp_path) == ["a.txt", "new"]


def test_an_error_inside_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert everything(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("code", FAULTS)
@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
def test_disk_faults_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, moment: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    if moment != "write":
        monkeypatch.setattr(os, moment, fail)
    with pytest.raises(OutputError) as caught, atomic.replacing(path) as temporary:
        temporary.write_text("new")
        if moment == "write":
            fail()
    assert str(path) in str(caught.value) and FAULTS[code] in str(caught.value)
    assert caught.value.exit_code == 1
    assert path.read_text() == "old"
    assert everything(tmp_path) == ["a.txt"]


def test_places_that_cannot_be_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for check in (atomic.check_writable, atomic.check_folder_writable):
        with pytest.raises(OutputError, match="not a folder"):
            check(tmp_path / "file" / "inner" / "a.png")
    with pytest.raises(OutputError, match="is a folder"):
        atomic.check_writable(tmp_path)
    with pytest.raises(OutputError, match="is a folder"), atomic.replacing(tmp_path):
        pass
    with (
        pytest.raises(OutputError, match="too long"),
        atomic.replacing(tmp_path / ("x" * 300)) as t,
    ):
        t.write_text("x")
    assert everything(tmp_path) == ["file"]


def test_checking_makes_nothing(tmp_path: Path) -> None:
    atomic.check_writable(tmp_path / "deep" / "er" / "a.png")
    atomic.check_folder_writable(tmp_path / "deep" / "er")
    assert not everything(tmp_path)


def test_a_read_only_disk_is_noticed_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(OutputError, match="read-only"):
        atomic.check_writable(tmp_path / "a.png")


def test_cache_folder_is_told_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_CACHE", "/somewhere")
    assert atomic.cache_folder() == Path("/somewhere")
    monkeypatch.delenv("UNDERSTUDY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert atomic.cache_folder() == Path("/elsewhere/understudy")


WRITER = """
import sys, torch
from pathlib import Path
from understudy.files.tensors import save_tensors
base = torch.arange(6.0).reshape(2, 3)
tensors = {"b": base, "a": base.T, "c": torch.ones(2, dtype=torch.int64), "d": torch.zeros(0)}
notes = {n: n + ' "é\\u2028' for n in ("format", "owner", "key", "phase", "record", "z")}
save_tensors(Path(sys.argv[1]), tensors, notes)
"""


def test_tensor_files_have_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    files = [tmp_path / f"{n}.safetensors" for n in range(2)]
    for file in files:
        subprocess.run([sys.executable, "-c", WRITER, str(file)], check=True)
    assert len({file.read_bytes() for file in files}) == 1
    found, notes = tensors.load_tensors(files[0])
    assert notes["owner"] == 'owner "é\u2028' and len(notes) == 6
    assert torch.equal(found["a"], torch.arange(6.0).reshape(2, 3).T)
    assert found["c"].tolist() == [1, 1] and found["d"].shape == (0,)
    (tmp_path / "cut").write_bytes(files[0].read_bytes()[:-3])
    with pytest.raises(OSError):
        tensors.load_tensors(tmp_path / "cut")


@pytest.mark.parametrize(
    "kind", ["inversion", "latent", "drag session", "concept weights", "generator weights"]
)
def test_the_same_value_is_saved_with_the_same_bytes(kind: str, tmp_path: Path) -> None:
    """safetensors keeps notes in a hash map whose order changes from one file to the next."""
    from test_mutants import LOADERS

    found = set[bytes]()
    for number in range(6):
        torch.manual_seed(0)
        (tmp_path / str(number)).mkdir()
        found.add(LOADERS[kind].make(tmp_path / str(number)).read_bytes())
    assert len(found) == 1


def test_a_full_disk_is_an_output_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(tensors, "save_file", full)
    with pytest.raises(OutputError, match=r"Cannot write .*a\.safetensors: the disk is full"):
        tensors.save_tensors(tmp_path / "a.safetensors", {"a": torch.ones(1)})
    assert everything(tmp_path) == []
