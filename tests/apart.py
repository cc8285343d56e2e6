"""Runs a program of the tests in a process of its own, without run-time type checks.

Those checks ask tensors for numbers, so what they check cannot be compiled or counted.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def printed(program: str) -> Any:
    """The JSON that tests/PROGRAM prints as its last line."""
    search = os.pathsep.join([str(ROOT), str(ROOT / "src"), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / program)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": search},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])
