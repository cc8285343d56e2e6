"""How quick the first things are: a picture of the toy world, the help, the import."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

from benchmarks.rows import Row
from understudy import toybox

COLUMNS = ("pictures of 128 pixels a second", "understudy --help, s", "import understudy, s")
PICTURES, TRIES = 40, 7


def quickness(number: int) -> Row:
    """Pictures a second on one core, and the best of seven starts."""
    scenes = [toybox.sample_scene(1000 * number + n) for n in range(PICTURES)]
    toybox.render(scenes[0])  # compiles, or reads what was compiled
    took = _seconds(lambda: [toybox.render(scene) for scene in scenes])
    commands = ([sys.executable, "-m", "understudy.cli", "--help"],
                [sys.executable, "-c", "import understudy"])  # fmt: skip
    starts = [min(_seconds(partial(_run, command)) for _ in range(TRIES)) for command in commands]
    return dict(zip(COLUMNS, (PICTURES / took, *starts), strict=True))


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started
