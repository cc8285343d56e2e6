"""Three processes that write 20 entries of 100 bytes each into one cache, at once.

A program for `apart.printed`: a process that has threads is not forked. The limit is what the
environment says. Prints the exit codes.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from pathlib import Path

from understudy.files.cache import Cache


def entry(root: Path, name: str, size: int) -> None:
    """An entry of so many bytes, as every writer keeps it."""
    kept = Cache(root / "inversions", (), bounded=True)
    kept.folder.mkdir(parents=True, exist_ok=True)
    with kept.making(name):
        (kept.folder / name).write_bytes(bytes(size))
        kept.kept(name)


def write(root: Path, first: int) -> None:
    for number in range(first, first + 20):
        entry(root, f"{number}", 100)


if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    root = Path(sys.argv[1])
    writers = [context.Process(target=write, args=(root, 100 * k)) for k in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    print(json.dumps([writer.exitcode for writer in writers]))
