"""The process that drags: it owns generators and sessions, reads commands, writes frames.

A message is a length of four bytes, JSON, and for a frame the bytes of a JPEG file. Sessions at
work take turns, one step each; commands are read between steps.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from understudy.drag.session import DragSession
from understudy.errors import InputError, UnderstudyError, sentence
from understudy.generators.folder import load_generator, stylegan2
from understudy.generators.interface import ImageGenerator
from understudy.generators.stylegan2.generator import StyleGAN2
from understudy.generators.stylegan3.generator import StyleGAN3
from understudy.pictures.photo import read_photo
from understudy.pictures.tensors import read_mask
from understudy.project.latent import Latent
from understudy.settings.drag import DragSettings
from understudy.studio.drag_live import LiveDrag

SESSIONS = 12  # kept in memory; the one that was used longest ago is left to its file
AGAIN = "Open it again to go on."
CLOSED = (
    f"This drag was closed, because at most {SESSIONS} are open at once and it was used longest "
    f"ago. The picture that it last showed is kept, earlier ones are not. {AGAIN}"
)
NOT_OPEN = f"This drag is not open. {AGAIN}"


def packed(head: dict[str, Any], body: bytes = b"") -> bytes:
    """One message."""
    text = json.dumps(head, allow_nan=False).encode()
    return len(text).to_bytes(4, "big") + text + body


def serve(pipe: Connection, folder: str) -> None:
    """Work until told to end, or until the pipe is closed; then write down what runs.

    folder: where sessions are kept for a restart.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to answer
    desk = _Desk(pipe, Path(folder))
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while desk.take_commands():
            desk.turn()
    with suppress(BrokenPipeError, ConnectionResetError):  # the server is gone
        desk.keep_all()
    pipe.close()


class _Desk:
    """Sessions by name, and the commands on them."""

    def __init__(self, pipe: Connection, folder: Path) -> None:
        self.pipe, self.folder = pipe, folder
        self.drags: dict[str, LiveDrag] = {}
        self.unsaved = set[str]()
        self._closed = set[str]()  # by `_make_room`
        self._noted = set[str]()  # those whose page knows why there is no CUDA graph
        self._answered: dict[str, int] = {}
        self._generators: dict[tuple[str, str], StyleGAN2 | StyleGAN3] = {}

    def busy(self) -> bool:
        """Whether any session is running."""
        return any(drag.running for drag in self.drags.values())

    def take_commands(self) -> bool:
        """Answer what has come, and wait if there is nothing else to do. False: told to end."""
        while self.pipe.poll(0 if self.busy() or self.unsaved else None):
            command = json.loads(self.pipe.recv_bytes())
            if command["do"] == "end":
                return False
            self.answer(command)
        return True

    def turn(self) -> None:
        """One step of each session that runs; what stands still is written down."""
        for name, drag in list(self.drags.items()):
            if drag.running:
                self._guarded(name, 0, drag.advance)
                self.unsaved.add(name)
        if not self.busy():
            self.keep_all()

    def keep_all(self) -> None:
        """Write down every session that has changed."""
        for name in list(self.unsaved):
            self._keep(name)

    def answer(self, command: dict[str, Any]) -> None:
        """Do one command; its number `re` comes back with the frame or the error.

        Every later frame carries the number, too: the server may skip frames, and a page that waits
        for an answer would wait for ever if the one frame that has it were skipped.
        """
        name, number = str(command["session"]), int(command.get("re", 0))
        if number > 0:  # the server's own commands have numbers below 0
            # Two pages may number differently: the one that is ahead must not wait for ever.
            self._answered[name] = max(number, self._answered.get(name, 0))
        if command["do"] == "open":
            self._guarded(name, number, lambda: self._open(name, command))
        elif command["do"] == "close":
            self.drags.pop(name, None)
            self._answered.pop(name, None)
            self._closed.discard(name)
            self._noted.discard(name)
            self._file(name).unlink(missing_ok=True)
        elif name not in self.drags:
            why = CLOSED if name in self._closed else NOT_OPEN
            self._send(name, {"event": "error", "re": number, "message": why})
        else:
            self._used(name)
            self._guarded(name, number, lambda: self._do(name, self.drags[name], command))

    def _do(self, name: str, drag: LiveDrag, command: dict[str, Any]) -> None:
        """One command on an open session."""
        calls: dict[str, Callable[[], None]] = {
            "look": lambda: None,
            "points": lambda: drag.points(_pairs(command)),
            "mask": lambda: drag.mask(_mask(drag, command), str(command.get("file") or "")),
            "settings": lambda: drag.configure(dict(command["settings"])),
            "run": drag.run,
            "pause": drag.pause,
            "step": lambda: _step(drag),
            "undo": lambda: drag.goto(max(drag.at - 1, 0)),
            "redo": lambda: drag.goto(min(drag.at + 1, len(drag.moments) - 1)),
            "goto": lambda: drag.goto(int(command["moment"])),
            "film": lambda: drag.film(Path(command["path"]), bool(command.get("marks", True))),
            "save": lambda: drag.save(Path(command["path"])),
        }
        calls[str(command["do"])]()
        if command["do"] in ("film", "save"):
            told = {"event": command["do"], "path": command["path"], "re": command.get("re", 0)}
            return self._send(name, told)
        if command["do"] != "look":
            self.unsaved.add(name)

    def _open(self, name: str, command: dict[str, Any]) -> None:
        """Begin a session, or take one up from its file; one that is open stays as it is."""
        if name in self.drags:
            return self._used(name)
        self._make_room()
        self._noted.discard(name)
        settings = DragSettings.filled(command.get("settings", {}), str(command["generator"]))
        model: ImageGenerator = self._generator(
            str(command["generator"]), str(command.get("device", "auto"))
        )
        latent = command.get("latent")
        if latent:
            projected = Latent.load(latent)
            loaded = self._generator(str(command["generator"]), str(command.get("device", "auto")))
            model, ws = projected.tuned(stylegan2(loaded)), projected.ws
        else:
            z = model.draw_z(int(command.get("seed", 0)))
            ws = model.latents(z, truncation=settings.truncation)
        kept = self._file(name)
        if kept.is_file():
            self.drags[name] = LiveDrag(model, DragSession.load(kept))
        elif command.get("saved"):
            self.drags[name] = LiveDrag(model, _saved(Path(command["saved"]), settings))
            self.unsaved.add(name)
        else:
            self.drags[name] = LiveDrag.begin(model, ws, settings)
            self.unsaved.add(name)
        self._closed.discard(name)

    def _make_room(self) -> None:
        """Close what was used longest ago, first what does not run, and tell its pages.

        Raises InputError where it cannot be written down: it would be lost.
        """
        while len(self.drags) >= SESSIONS:
            still = (name for name, drag in self.drags.items() if not drag.running)
            oldest = next(still, next(iter(self.drags)))
            self.drags[oldest].pause()
            if not self._keep(oldest):
                raise InputError(
                    f"{SESSIONS} drags are open, and none can be closed: the one used longest ago "
                    "cannot be written to disk. Free some space, or remove a drag."
                )
            del self.drags[oldest]
            self._closed.add(oldest)
            self._send(oldest, {"event": "closed", "message": CLOSED})

    def _generator(self, name: str, device: str) -> StyleGAN2 | StyleGAN3:
        if (name, device) not in self._generators:
            self._generators.clear()
            self._generators[name, device] = load_generator(name, device=device)
        return self._generators[name, device]

    def _guarded(self, name: str, number: int, call: Callable[[], None]) -> None:
        """Call, then send the moment that is reached with its frame, or one line of error."""
        try:
            call()
        except (UnderstudyError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            if name in self.drags:
                self.drags[name].pause()
            ours = isinstance(error, UnderstudyError)
            line = str(error) if ours else f"The drag failed: {type(error).__name__}: {error}"
            self._send(name, {"event": "error", "re": number, "message": line})
        if name in self.drags:
            drag = self.drags[name]
            if drag.note and name not in self._noted:  # once for each time it is opened
                self._noted.add(name)
                line = f"The drag runs without a CUDA graph: {sentence(drag.note)}"
                self._send(name, {"event": "note", "message": line})
            height, width = drag.moment.shown.picture
            answered = self._answered.get(name, 0)
            head = {"event": "frame", "re": answered, "width": width, "height": height}
            self._send(name, {**head, **drag.facts()}, drag.frame())

    def _send(self, name: str, head: dict[str, Any], body: bytes = b"") -> None:
        self.pipe.send_bytes(packed({"session": name, **head}, body))

    def _used(self, name: str) -> None:
        """Make it the one that was used last."""
        self.drags[name] = self.drags.pop(name)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _keep(self, name: str) -> bool:
        """Write a session down, or say why not; a full disk costs the restart, not the drag."""
        self.unsaved.discard(name)
        if name in self.drags:
            os.makedirs(self.folder, exist_ok=True)
            try:
                self.drags[name].keep(self._file(name))
            except UnderstudyError as error:
                self._send(name, {"event": "note", "message": str(error)})
                return False
        return True


def _saved(file: Path, settings: DragSettings) -> DragSession:
    """A session that `LiveDrag.save` wrote for one step, to go on with for more."""
    found = DragSession.load(file)
    own = replace(found.settings, steps=settings.steps, reset_optimiser=settings.reset_optimiser)
    return found.with_settings(own)


def _step(drag: LiveDrag) -> None:
    """One step, then stand still. The first look at new points moves nothing: it is no step."""
    before = drag.at
    drag.advance()
    if drag.running and drag.at == before:
        drag.advance()
    drag.pause()


def _pairs(command: dict[str, Any]) -> list[Any]:
    """The pairs of a command. Raises InputError for anything but numbers."""
    try:
        return [((float(a), float(b)), (float(c), float(d))) for (a, b), (c, d) in command["pairs"]]
    except (TypeError, ValueError):
        raise InputError("Points must be pairs of x, y in pixels.") from None


def _mask(drag: LiveDrag, command: dict[str, Any]) -> Any:
    """The mask of a command's picture file, of any size of the same shape; None for no mask."""
    path = command.get("path")
    if not path:
        return None
    photo = read_photo(path)
    return read_mask(Path(path), photo.size, drag.moment.shown.picture)
