"""Drags that pages watch: commands to the drag process, its frames back to the right pages.

Free of torch. One process serves all sessions; it is started by the first and started again when
it died, and sessions are then taken up from their files. A page that is slow gets the newest frame
and misses older ones; frames never arrive out of order. A page that says which frames it has drawn
is never more than AHEAD frames behind: else a busy browser would queue frames without bound.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import threading
from collections import deque
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from understudy.errors import InputError

COMMANDS = {  # what a page may send, and the fields that are passed on
    "look": (),
    "points": ("pairs",),
    "settings": ("settings",),
    "run": (),
    "pause": (),
    "step": (),
    "undo": (),
    "redo": (),
    "goto": ("moment",),
}
MAX_POINTS = 64
AHEAD = 2  # frames sent that are not drawn yet; one travels while the other is drawn
DIED = "The drag process ended and is started again with what was kept at the last pause."


class Listener:
    """What one page has not read yet: lines in order, and the newest frame.

    acknowledges: whether the page says when it has drawn a frame, by `drawn`.
    """

    def __init__(self, acknowledges: bool = False) -> None:
        self.acknowledges = acknowledges
        self._undrawn = 0
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._lines: deque[str] = deque(maxlen=200)
        self._frame: bytes | None = None
        self._news = asyncio.Event()

    def tell(self, head: dict[str, Any], message: bytes) -> None:
        """Take a message, from any thread."""
        with self._lock:
            if head["event"] == "frame":
                self._frame = message
            else:
                self._lines.append(json.dumps(head))
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    def drawn(self) -> None:
        """The page has drawn a frame, or dropped it."""
        with self._lock:
            self._undrawn = max(self._undrawn - 1, 0)
        self._news.set()

    async def next(self) -> list[str | bytes]:
        """Wait for news: lines first, then the newest frame."""
        found = list[str | bytes]()
        while not found:
            await self._news.wait()
            with self._lock:
                self._news.clear()
                found += self._lines
                self._lines.clear()
                if self._frame is not None and self._undrawn < AHEAD:
                    found.append(self._frame)
                    self._frame = None
                    self._undrawn += self.acknowledges
        return found


class DragProcess:
    """The process of all drags of one server. folder: where sessions are kept for a restart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._process: Any = None
        self._pipe: Connection | None = None
        self._listeners: dict[str, set[Listener]] = {}
        self._closing = False

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return None if self._process is None else self._process.pid

    def listen(self, session: str, acknowledges: bool = False) -> Listener:
        """A new listener to a session; the caller must give it back to `leave`."""
        listener = Listener(acknowledges)
        with self._lock:
            self._listeners.setdefault(session, set()).add(listener)
        return listener

    def leave(self, session: str, listener: Listener) -> None:
        """Forget a listener. A session that nobody watches is paused, not closed."""
        with self._lock:
            mine = self._listeners.get(session, set())
            mine.discard(listener)
            alone = not mine
            if alone:
                self._listeners.pop(session, None)
        if alone and self._process is not None:
            self.send(session, {"do": "pause"})

    def send(self, session: str, command: dict[str, Any]) -> None:
        """Give the process a command; it is started if need be."""
        message = json.dumps({**command, "session": session}).encode()
        with self._lock:
            pipe = self._started()
            # Of a process that has just ended the reader tells every page.
            with suppress(BrokenPipeError, ConnectionResetError):
                pipe.send_bytes(message)

    def close(self) -> None:
        """End the process; what stood still is in its file."""
        with self._lock:
            process, pipe = self._process, self._pipe
            self._process = self._pipe = None
            self._closing = True
        if process is not None and pipe is not None:
            # Not closed here: the thread that reads it closes it, once the process has.
            with suppress(OSError):
                pipe.send_bytes(json.dumps({"do": "end"}).encode())
            process.join(3)
            process.terminate()
            process.join(5)

    def _started(self) -> Connection:
        if self._pipe is None or not self._process.is_alive():
            self._closing = False
            # Its code imports torch, which the server does not.
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(
                target=_serve, args=(theirs, str(self.folder)), daemon=True
            )
            self._process.start()
            theirs.close()
            threading.Thread(target=self._read, args=(self._pipe,), daemon=True).start()
        return self._pipe

    def _read(self, pipe: Connection) -> None:
        """Hand messages to listeners until the process ends."""
        while True:
            try:
                message = pipe.recv_bytes()
            except (EOFError, OSError):
                pipe.close()
                break
            length = int.from_bytes(message[:4], "big")
            head = json.loads(message[4 : 4 + length])
            with self._lock:
                mine = list(self._listeners.get(head["session"], ()))
            for listener in mine:
                listener.tell(head, message)
        # Every page is told, also where another process runs by now: it knows none of the sessions.
        with self._lock:
            every = [one for some in self._listeners.values() for one in some]
            if self._pipe is pipe:
                self._process = self._pipe = None
            if self._closing:
                return
        for listener in every:
            listener.tell({"event": "died", "message": DIED}, b"")


def checked(command: Any) -> dict[str, Any]:
    """A page's command with its declared fields only. Raises InputError."""
    if not isinstance(command, dict) or command.get("do") not in COMMANDS:  # pyright: ignore
        raise InputError(f"A command must be one of {', '.join(COMMANDS)}.")
    given: dict[str, Any] = command
    found = {"do": given["do"], "re": _whole(given.get("re", 0))}
    for name in COMMANDS[given["do"]]:
        found[name] = given.get(name)
    if "pairs" in found:
        _check_pairs(found["pairs"])
    if "settings" in found and not isinstance(found["settings"], dict):
        raise InputError("settings must be an object of names and values.")
    if "moment" in found:
        found["moment"] = _whole(found["moment"])
    return found


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise InputError("Wanted a whole number from 0.")
    return value


def _check_pairs(pairs: Any) -> None:
    """Raise InputError unless these are [[[x, y], [x, y]], ...]."""
    fault = InputError("Points must be pairs [[x, y], [x, y]] of a handle and its target.")
    if not isinstance(pairs, list):
        raise fault
    if len(pairs) > MAX_POINTS:  # pyright: ignore[reportUnknownArgumentType]
        raise InputError(f"At most {MAX_POINTS} points can be dragged at once.")
    for pair in pairs:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(pair, list) or len(pair) != 2:  # pyright: ignore
            raise fault
        for point in pair:  # pyright: ignore[reportUnknownVariableType]
            if not isinstance(point, list) or len(point) != 2:  # pyright: ignore
                raise fault
            if not all(isinstance(one, int | float) for one in point):  # pyright: ignore
                raise fault


def _serve(pipe: Connection, folder: str) -> None:
    """The process: torch is imported here."""
    from understudy.studio.drag_worker import serve

    serve(pipe, folder)
