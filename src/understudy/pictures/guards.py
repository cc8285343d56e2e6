"""Guards around a decoder: the work a JPEG asks for is bounded, and libtiff's messages are dropped.

Only `photo` calls them.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from understudy.errors import PictureError

MAX_SCANNED = 1_280_000_000  # pixels x scans: 20 scans at the largest size; encoders write 1 to 12
START_OF_SCAN = b"\xff\xda"
CHUNK = 2**20  # bytes
_QUIET = threading.Lock()


def check_scans(file: Path, pixels: int) -> None:
    """Raise PictureError when a JPEG has more scans than an encoder writes for its size.

    Each scan goes over all `pixels`, and a scan may take few bytes: without a bound, a small file
    keeps a decoder busy for hours. Inside a scan 0xFF is escaped, so the marker is unambiguous
    there; a chance match in metadata counts as a scan, which the bound leaves room for.
    """
    scans, tail = 0, b""
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            scans += (tail + chunk).count(START_OF_SCAN)
            tail = chunk[-1:]
            if scans * pixels > MAX_SCANNED:
                raise PictureError(
                    f"{file} is a JPEG of {pixels:,} pixels in {scans} scans or more; at most "
                    f"{MAX_SCANNED // pixels} are read at this size. Save it again."
                )


@contextmanager
def unlogged() -> Generator[None]:
    """Pillow's log is not printed: without a handler, Python would print it on stderr."""
    log, nowhere = logging.getLogger("PIL"), logging.NullHandler()
    log.addHandler(nowhere)
    try:
        yield
    finally:
        log.removeHandler(nowhere)


@contextmanager
def quiet(format: str | None) -> Generator[None]:
    """While a TIFF is decoded, the process's stderr is dropped: libtiff writes to it directly."""
    if format != "TIFF":
        yield
        return
    with _QUIET:
        try:
            kept = os.dup(2)
        except OSError:  # the process has no stderr
            kept = None
        if kept is None:
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
