"""A size-limited cache of results that can be recomputed; the least recently used go first.

The cache has a folder for each kind of entry. An entry is a file or a folder in it:

    inversions/KEY.safetensors             the entry
    inversions/KEY.safetensors.made.json   what it was made from; its time is that of the last use
    inversions/KEY.safetensors.lock        exclusive while it is made or removed, shared while read

Several processes may use the cache at once. An entry that somebody reads or makes is not removed.
Knows nothing of what entries hold.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from understudy.errors import InputError, OutputError
from understudy.files.atomic import cache_folder, remove_folder, replacing, unwritable
from understudy.files.locks import held
from understudy.files.origins import Origin, read_record, write_record
from understudy.files.reading import read_bytes, read_json
from understudy.files.sizes import parse_size

KINDS = {
    "inversions": "inverted photos",
    "sources": "attention features of inverted photos",
    "classes": "class images for prior preservation",
    "models": "models converted from single files, toybox-flow",
}
VARIABLE = "UNDERSTUDY_CACHE_SIZE"
LARGEST, SHARE = 20 * 10**9, 10  # default limit: 20 GB, at most a tenth of the disk
AFTER_TRIM = 0.9  # of the limit: what trimming leaves, so that not every write has to trim
RECORD, LOCK = ".made.json", ".lock"
LIMIT, TOTAL = "limit.json", ".total"  # in the cache's own folder; TOTAL is an estimate
STALE = 86400  # seconds after which a half-written file is nobody's


@dataclass(frozen=True)
class Entry:
    """An entry as it is on the disk. size: bytes. used: seconds since the epoch."""

    kind: str
    path: Path
    size: int
    used: float
    made_from: tuple[Origin, ...] = ()


@dataclass(frozen=True)
class Cache:
    """A folder of entries of one kind.

    made_from: what entries made through this value are recorded to be made from. bounded: whether
    the folder is part of the user's cache, whose size is limited; other folders grow without end.
    until: ends the use of borrowed entries.
    """

    folder: Path
    made_from: tuple[Origin, ...] = ()
    bounded: bool = False
    until: ExitStack | None = field(default=None, compare=False)

    @classmethod
    def user(
        cls, kind: str, made_from: Iterable[Origin] = (), until: ExitStack | None = None
    ) -> Cache:
        """The folder of a kind in the user's cache."""
        return cls(cache_folder() / kind, tuple(made_from), True, until)

    @classmethod
    def at(cls, place: Path | Cache) -> Cache:
        """A folder as a cache without a limit; a cache as it is."""
        return place if isinstance(place, Cache) else cls(place)

    def making(self, name: str) -> AbstractContextManager[bool]:
        """Nobody else makes, reads or removes the entry inside the block."""
        return held(self.folder / f"{name}{LOCK}")

    def using(self, name: str) -> AbstractContextManager[bool]:
        """Nobody makes or removes the entry inside the block; others may read it, too."""
        return held(self.folder / f"{name}{LOCK}", shared=True)

    def borrow(self, name: str) -> None:
        """Read the entry until `until` is closed: nobody makes or removes it before."""
        if self.until is not None:
            self.until.enter_context(self.using(name))

    def used(self, name: str) -> None:
        """Note that the entry was used now, and what it was used for."""
        if not (self.folder / name).exists():
            return
        with self._alone(), suppress(OSError, OutputError):
            record = self.folder / f"{name}{RECORD}"
            known = read_record(record)
            origins = tuple(sorted({*known, *self.made_from}))
            if origins != known or not record.exists():
                write_record(record, origins)
            os.utime(record)

    def kept(self, name: str) -> None:
        """Note that the entry was written now. May remove others to hold the limit."""
        self.used(name)
        if self.bounded:
            with self._alone(), suppress(OSError, OutputError, InputError):
                _add(self.folder.parent, size_of(self.folder / name))

    @contextmanager
    def _alone(self) -> Generator[None]:
        """One process at a time writes records and removes entries."""
        with held(self.folder.parent / LOCK) if self.bounded else held(self.folder / LOCK):
            yield


def reading(path: Path) -> AbstractContextManager[object]:
    """Nobody removes `path` inside the block, if it is an entry of the user's cache."""
    if path.parent.parent != cache_folder():
        return nullcontext()
    return Cache(path.parent).using(path.name)


def limit_of(root: Path) -> int:
    """The most bytes that a cache may take: UNDERSTUDY_CACHE_SIZE, or what `set_limit` wrote, or
    20 GB but at most a tenth of the disk. Raises InputError for a size that cannot be read."""
    told = os.environ.get(VARIABLE)
    if told:
        return parse_size(told, VARIABLE)
    with suppress(InputError, ValueError, KeyError, TypeError):
        return int(read_json(root / LIMIT)["bytes"])
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    return min(LARGEST, shutil.disk_usage(there).total // SHARE)


def set_limit(root: Path, size: int) -> None:
    """Keep a limit in the cache itself. Raises OutputError."""
    with replacing(root / LIMIT) as staged:
        staged.write_text(json.dumps({"bytes": size}) + "\n", encoding="utf-8")


def entries(root: Path) -> list[Entry]:
    """All entries of a cache, least recently used first."""
    found: list[Entry] = []
    for kind in sorted(folder for folder in root.glob("*") if folder.is_dir()):
        for path in kind.iterdir():
            if not path.name.startswith(".") and not path.name.endswith((RECORD, LOCK)):
                with suppress(FileNotFoundError):  # another process removed it
                    found.append(_entry(kind.name, path))
    return sorted(found, key=lambda entry: (entry.used, entry.path))


def remove(entry: Entry) -> bool:
    """Remove an entry and its record, unless somebody uses it. Returns whether it is gone.

    Raises OutputError where the disk refuses.
    """
    lock = entry.path.parent / f"{entry.path.name}{LOCK}"
    with held(lock, wait=False) as free:
        if not free:
            return False
        try:
            remove_folder(entry.path)
            for path in (entry.path.parent / f"{entry.path.name}{RECORD}", lock):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(entry.path, error) from error
    return True


def clear(root: Path, wanted: Callable[[Entry], bool] = lambda entry: True) -> Cleared:
    """Remove all wanted entries that nobody uses."""
    removed: list[Entry] = []
    busy: list[Entry] = []
    with held(root / LOCK):
        for entry in filter(wanted, entries(root)):
            (removed if remove(entry) else busy).append(entry)
        _sweep(root)
        _write_total(root, sum(entry.size for entry in entries(root)))
    return Cleared(tuple(removed), tuple(busy))


def disown(entry: Entry, gone: Callable[[Origin], bool]) -> None:
    """Take origins out of an entry's record; the entry stays. Raises OutputError."""
    record = entry.path.parent / f"{entry.path.name}{RECORD}"
    with held(entry.path.parent.parent / LOCK):
        write_record(record, [one for one in read_record(record) if not gone(one)])
        os.utime(record, (entry.used, entry.used))


@dataclass(frozen=True)
class Cleared:
    """What was removed, and what was left because somebody uses it."""

    removed: tuple[Entry, ...]
    busy: tuple[Entry, ...]


def trim(root: Path, most: int) -> Cleared:
    """Remove least recently used entries until the cache takes at most `most` bytes.

    The lock of the cache must be held, or nobody else may use it.
    """
    found = entries(root)
    total = sum(entry.size for entry in found)
    removed: list[Entry] = []
    busy: list[Entry] = []
    for entry in found:
        if total <= most:
            break
        if remove(entry):
            removed.append(entry)
            total -= entry.size
        else:
            busy.append(entry)
    _sweep(root)
    _write_total(root, total)
    return Cleared(tuple(removed), tuple(busy))


def hold(root: Path) -> Cleared:
    """Trim the cache to its limit now."""
    with held(root / LOCK):
        return trim(root, limit_of(root))


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(_sizes(path))


def _add(root: Path, size: int) -> None:
    """Count what was written; trim where the cache may be over its limit.

    The total is kept in a file, so that a write does not look at every entry. It never misses an
    entry of ours; it may count one twice, and then the entries are looked at earlier.
    """
    try:
        total = int(read_bytes(root / TOTAL)) + size
    except (InputError, ValueError):
        total = sum(entry.size for entry in entries(root))
    most = limit_of(root)
    if total > most:
        trim(root, int(most * AFTER_TRIM))
    else:
        _write_total(root, total)


def _sweep(root: Path) -> None:
    """Remove what killed processes left: half-written files, and records without an entry."""
    before = time.time() - STALE
    for path in [*root.glob("*/.*.partial"), *root.glob(f"*/*{RECORD}")]:
        entry = path.with_name(path.name.removesuffix(RECORD))
        with suppress(OSError):
            if path.stat().st_mtime < before and (entry == path or not entry.exists()):
                remove_folder(path)


def _write_total(root: Path, total: int) -> None:
    if root.is_dir():  # neither staged nor flushed: a torn number is counted again
        (root / TOTAL).write_text(str(total))


def _entry(kind: str, path: Path) -> Entry:
    record = path.parent / f"{path.name}{RECORD}"
    timed = record if record.exists() else path
    return Entry(kind, path, size_of(path), timed.stat().st_mtime, read_record(record))


def _sizes(folder: Path) -> Iterator[int]:
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file():
                yield path.stat().st_size
