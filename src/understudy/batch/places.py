"""Local paths and fsspec addresses (s3://, gs://, memory://) behind the same few functions.

A table of a stranger may hold addresses. Only plain stores are opened, because some of fsspec's
other file systems run what a file says (reference:// renders templates) or reach others ("::").
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from understudy.errors import ExtraMissing, InputError, OutputError
from understudy.files.atomic import replacing, unwritable
from understudy.files.reading import MAX_TENSORS, REASONS, check_regular

SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hdfs", "webhdfs", "sftp", "ssh",
           "hf", "http", "https", "memory")  # fmt: skip


def is_address(text: str) -> bool:
    """Whether a path names a file system: "s3://bucket/a.png". "file://" counts as well."""
    return "://" in text


@dataclass(frozen=True)
class Place:
    """A file or folder, local or of another file system."""

    text: str

    @property
    def local(self) -> Path | None:
        """The path on this machine; None for another file system."""
        if self.text.startswith("file://"):
            return Path(self.text.removeprefix("file://"))
        return None if is_address(self.text) else Path(self.text)

    @property
    def name(self) -> str:
        return PurePosixPath(self.text).name

    def __truediv__(self, name: str) -> Place:
        return Place(f"{self.text.rstrip('/')}/{name}" if self.local is None
                     else str(self.local / name))  # fmt: skip

    def read(self, most: int = MAX_TENSORS) -> bytes:
        """All bytes. Raises InputError, naming the place, where there are more than `most`."""
        with self.opened() as stream:
            data: bytes = stream.read(most + 1)
        if len(data) > most:
            raise InputError(f"{self.text} has more than {most:,} bytes. Give the right file.")
        return data

    @contextmanager
    def opened(self) -> Generator[Any]:
        """The file as a stream of bytes. Raises InputError, naming the place."""
        try:
            if self.local is not None:
                with open(check_regular(self.local), "rb") as stream:
                    yield stream
            else:
                system, path = _system(self.text)
                with system.open(path, "rb") as stream:
                    yield stream
        except OSError as error:
            raise InputError(f"{self.text} cannot be read: {_reason(error)}.") from error

    def write(self, data: bytes) -> None:
        """Write the file whole or not at all. Raises OutputError."""
        if self.local is not None:
            with replacing(self.local) as staged:
                staged.write_bytes(data)
            return
        system, path = _system(self.text)
        try:
            system.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
            # An object store shows an object when it is complete; other systems rename.
            staged = f"{path}.{secrets.token_hex(4)}.partial"
            system.pipe_file(staged, data)
            system.mv(staged, path)
        except OSError as error:
            raise OutputError(f"Cannot write {self.text}: {_reason(error)}.") from error

    def files(self, suffix: str) -> list[Place]:
        """The files of a folder with this suffix, by name; none where there is no folder."""
        if self.local is not None:
            return [Place(str(file)) for file in sorted(self.local.glob(f"*{suffix}"))]
        system, path = _system(self.text)
        with suppress(FileNotFoundError):
            names = sorted(PurePosixPath(one).name for one in system.ls(path, detail=False))
            return [self / name for name in names if name.endswith(suffix)]
        return []

    def check_writable(self) -> None:
        """Raise OutputError now if a file could not be written into this folder."""
        probe = self / f".{secrets.token_hex(8)}.probe"
        probe.write(b"")
        probe.remove()

    def remove(self) -> None:
        """Remove a file, if it is there."""
        if self.local is not None:
            try:
                self.local.unlink(missing_ok=True)
            except OSError as error:
                raise unwritable(self.local, error) from error
            return
        system, path = _system(self.text)
        with suppress(FileNotFoundError):
            system.rm(path)


def fetched(text: str, folder: Path) -> Path:
    """A file of another file system copied into a local folder; the same address, the same copy."""
    place = Place(text)
    if place.local is not None:
        return place.local
    name = f"{hashlib.sha256(text.encode()).hexdigest()[:16]}-{place.name}"
    copy = folder / name
    if not copy.exists():
        with place.opened() as stream, replacing(copy) as staged, staged.open("wb") as written:
            shutil.copyfileobj(stream, written)
    return copy


def uploaded(file: Path, to: Place) -> None:
    """Copy a local file, or a folder with all its files, to another file system."""
    for path in sorted(file.rglob("*")) if file.is_dir() else [file]:
        if path.is_file():
            inside = path.relative_to(file).as_posix() if file.is_dir() else ""
            (to / inside if inside else to).write(path.read_bytes())


def _system(text: str) -> tuple[Any, str]:
    """fsspec's file system of an address, and the path in it."""
    if "::" in text or text.partition("://")[0] not in SCHEMES:
        raise InputError(
            f"{text} cannot be opened: expected an address of {', '.join(SCHEMES)}, without '::'."
        )
    try:
        import fsspec
    except ImportError as error:
        raise ExtraMissing("batch", text) from error
    try:
        return fsspec.core.url_to_fs(text)
    except (ImportError, ValueError) as error:
        raise InputError(f"{text} cannot be opened: {error}") from error


def _reason(error: OSError) -> str:
    return REASONS.get(error.errno or 0, "") or (
        "there is no such file" if isinstance(error, FileNotFoundError) else
        error.strerror or str(error) or os.strerror(error.errno or 5)
    )  # fmt: skip
