"""Advisory locks between processes, on files that may be removed while others wait for them.

Locks are `flock`'s: they end with the process, and several readers may share one. Where there is no
`flock` (Windows, some network file systems) nothing is locked.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl as _fcntl
except ImportError:  # Windows, where a file that somebody has open cannot be removed anyway
    _fcntl = None
fcntl: Any = _fcntl


@contextmanager
def held(path: Path, *, shared: bool = False, wait: bool = True) -> Generator[bool]:
    """Hold the lock of the file `path`, which is made if need be, inside the block.

    shared: together with other shared holders. wait: until it is free; if False, yields False
    where somebody else holds it. Yields True without a lock where none can be taken.
    """
    free, handle = _acquired(path, shared, wait)
    try:
        yield free
    finally:
        if handle is not None:
            os.close(handle)


def _acquired(path: Path, shared: bool, wait: bool) -> tuple[bool, int | None]:
    """Whether the lock is free, and the open file that holds it, if one does."""
    if fcntl is None:
        return True, None
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    while True:
        handle = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(handle, how)
            if _same_file(handle, path):
                return True, handle
        except BlockingIOError:
            _close(handle)
            return False, None
        except OSError:  # read-only, or a file system without locks
            _close(handle)
            return True, None
        except BaseException:  # Ctrl-C while waiting
            _close(handle)
            raise
        os.close(handle)  # it was removed while we waited: take the new one


def _same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _close(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)
