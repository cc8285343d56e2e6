"""The command line. Ctrl-C is handled before anything else is imported.

This file and `understudy/__init__.py` import nothing but the standard library's smallest modules,
so that the handler is in place a few milliseconds after Python has started. While Python itself
starts, Ctrl-C shows a traceback of Python's own: no program can change that. The commands are in
`understudy.cli.app`.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # type checkers take it for True; `typing` takes milliseconds to import

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType
    from typing import NoReturn

STOPPED, LAST_WORDS = 130, "stopped; no partial result was left behind."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    from understudy.cli.app import run

    return run(list(sys.argv[1:] if arguments is None else arguments))


def script() -> None:
    """The `understudy` command. Ends the process with the exit code."""
    try:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as under nohup
            signal.signal(signal.SIGINT, stop)
        code = main()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the work is done: end with its code
    except KeyboardInterrupt:
        _leave()
    sys.exit(code)


def stop(number: int, frame: FrameType | None) -> None:
    """Handle Ctrl-C: raise KeyboardInterrupt, or end the process at once during an import.

    An exception within an import can be swallowed (by importlib's callbacks) or replaced (by
    modules that catch every exception of an optional import), so none is raised there.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _leave()
        frame = frame.f_back
    raise KeyboardInterrupt


def _leave() -> NoReturn:
    os.write(2, f"understudy: {LAST_WORDS}\n".encode())
    os._exit(STOPPED)
