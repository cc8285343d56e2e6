"""Runs a program of the tests in a process of its own, without threads and run-time type checks.

Those checks ask tensors for numbers, so what they check cannot be compiled or counted. And a fork
of a process that has threads may wait forever for a lock that one of them held.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def printed(program: str, *words: str, seconds: float = 240) -> Any:
    """The JSON that tests/PROGRAM, called with `words`, prints as its last line; see `output`."""
    told = output(str(ROOT / "tests" / program), *words, seconds=seconds)
    return json.loads(told.splitlines()[-1])


def output(*words: str, seconds: float = 240, **environment: str) -> str:
    """What Python, called with `words`, prints; `environment` is added to the process's own.

    It is ended, with all processes it has started, and the test fails, after `seconds`.
    """
    search = os.pathsep.join([str(ROOT), str(ROOT / "src"), str(ROOT / "tests")])
    process = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": search, **environment},
        start_new_session=True,
    )
    try:
        told, errors = process.communicate(timeout=seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == 0, (told + errors)[-2000:]
    return told
