"""Results appear whole or not at all: written under a temporary name, then renamed.

Every writer of the package goes through `replacing`. Knows nothing of what is written.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from understudy.errors import OutputError

REASONS = {
    errno.EROFS: "the disk is read-only; choose another place",
    errno.EACCES: "no permission to write there; choose another place",
    errno.EPERM: "no permission to write there; choose another place",
    errno.ENOSPC: "the disk is full; free some space or choose another place",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another place",
    errno.ENOTDIR: "a part of that path is a file, not a folder; choose another place",
    errno.EISDIR: "that is a folder; give a file name",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ENOENT: "the folder does not exist and cannot be created; choose another place",
}


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Generator[Path]:
    """Yield a temporary path beside `path`; when the block ends well, rename it to `path`.

    Missing folders are made. Whatever goes wrong, `path` is what it was before and nothing
    half-written stays. An OSError becomes an OutputError that names `path` and the reason.
    """
    target = Path(path)
    temporary = target.parent / f".{secrets.token_hex(8)}.partial"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
        _flush(target.parent)
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        _remove(temporary)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as JSON, UTF-8 with a final newline. Raises OutputError as `replacing` does."""
    with replacing(path) as staged:
        staged.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


@contextmanager
def staging(folder: str | os.PathLike[str]) -> Generator[Path]:
    """Yield a temporary folder beside `folder`; when the block ends well, rename it to `folder`.

    `folder` must not exist. Whatever goes wrong, nothing half-written stays. An OSError becomes an
    OutputError that names `folder` and the reason.
    """
    target = Path(folder)
    temporary = target.parent / f".{secrets.token_hex(8)}.partial"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in sorted(temporary.rglob("*")):
            _flush(path)
        _flush(temporary)
        os.rename(temporary, target)
        _flush(target.parent)
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder, or a file, so that nobody ever sees half of it: it is renamed first."""
    doomed = folder.parent / f".{secrets.token_hex(8)}.partial"
    try:
        os.rename(folder, doomed)
    except FileNotFoundError:
        return
    if doomed.is_dir() and not doomed.is_symlink():
        shutil.rmtree(doomed, ignore_errors=True)
    else:
        _remove(doomed)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left half-written in a folder that nobody else writes to."""
    for path in folder.glob(".*.partial"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            _remove(path)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise OutputError now, before minutes of work, if a file at `path` could not be written.

    Writes and removes an empty file in the nearest folder that exists already; makes none.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        _probe(target.parent)
    except OSError as error:
        raise unwritable(target, error) from error


def check_folder_writable(path: str | os.PathLike[str]) -> None:
    """The same for a folder that will receive files; it need not exist yet."""
    try:
        _probe(Path(path))
    except OSError as error:
        raise unwritable(Path(path), error) from error


def unwritable(path: Path, error: OSError) -> OutputError:
    """The OutputError that tells in one line why `path` cannot be written."""
    reason = REASONS.get(error.errno or 0, error.strerror or str(error))
    return OutputError(f"Cannot write {path}: {reason}.")


def _probe(folder: Path) -> None:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    probe = folder / f".{secrets.token_hex(8)}.partial"
    try:
        probe.touch(exist_ok=False)
    finally:
        _remove(probe)


def _flush(path: Path) -> None:
    """Ask the disk to keep what was written; a file system that cannot be asked is fine."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # the folder itself is unusable: there is nothing to remove
        pass


def cache_folder() -> Path:
    """Where results that can be made again are kept: UNDERSTUDY_CACHE, or ~/.cache/understudy."""
    chosen = os.environ.get("UNDERSTUDY_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "understudy"
