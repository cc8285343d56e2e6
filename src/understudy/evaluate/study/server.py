"""The page that asks, served from this machine to raters on this machine or network.

The standard library's server: a few raters, small pictures, nothing from elsewhere. It answers with
questions that say nothing of methods; study.json itself is never served.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from understudy.errors import InputError, OutputError, UnderstudyError
from understudy.evaluate.study.questions import read
from understudy.evaluate.study.votes import Votes

VOTES = "votes.sqlite"
HERE = Path(__file__).parent
FILES = {  # what is served beside questions and pictures
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
_RATER = re.compile(r"/r/([\w-]{8,64})")
_ASK = re.compile(r"/ask/([\w-]{8,64})")
_PICTURE = re.compile(r"/pictures/([0-9a-f]{20}\.png)")
MAX_BODY = 4096  # bytes
GUARDS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; script-src 'self'; "
    "style-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class StudyServer(ThreadingHTTPServer):
    """Serves one study's folder; every vote is on the disk before it is answered."""

    daemon_threads = True

    def __init__(self, folder: Path, *, host: str = "127.0.0.1", port: int = 8300) -> None:
        self.votes = Votes(folder / VOTES, read(folder))
        self.pictures = folder / "pictures"
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise OutputError(f"Cannot listen on {host}:{port}: {error}. Try another.") from error


class Handler(BaseHTTPRequestHandler):
    """One request. Paths: / and /r/WORD (the page), /begin, /ask/WORD, /pictures/NAME."""

    server: StudyServer  # pyright: ignore[reportIncompatibleVariableOverride]
    server_version, sys_version = "understudy", ""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/" or _RATER.fullmatch(path):
            self._file("page.html", "text/html; charset=utf-8")
        elif path in FILES:
            self._file(*FILES[path])
        elif found := _PICTURE.fullmatch(path):
            self._picture(found[1])
        elif found := _ASK.fullmatch(path):
            self._guarded(lambda: self._next(found[1]))
        else:
            self._json({"error": "There is nothing here."}, HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != self.headers.get("Host"):
            self._json({"error": "Votes are taken from our own page only."}, HTTPStatus.FORBIDDEN)
        elif path == "/begin":
            self._guarded(lambda: {"rater": self.server.votes.join()})
        elif found := _ASK.fullmatch(path):
            self._guarded(lambda: self._vote(found[1]))
        else:
            self._json({"error": "There is nothing here."}, HTTPStatus.NOT_FOUND)

    def _next(self, token: str) -> dict[str, Any]:
        """Where the rater stands, and the next question as it may be shown."""
        done, question = self.server.votes.next(token)
        total = len(self.server.votes.study.sheets[self.server.votes.sheet(token)])
        shown = None if question is None else question.shown()
        return {"done": done, "total": total, "question": shown}

    def _vote(self, token: str) -> dict[str, Any]:
        said = self._body()
        seconds = said.get("seconds", 0)
        seconds = min(max(float(seconds), 0), 86400) if isinstance(seconds, int | float) else 0.0
        question, answer = str(said.get("question")), str(said.get("answer"))
        self.server.votes.vote(token, question, answer, seconds)
        return self._next(token)

    def _body(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MAX_BODY:
            raise InputError(f"A vote has at most {MAX_BODY} bytes.")
        try:
            said = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise InputError("A vote is a JSON object.") from None
        if not isinstance(said, dict):
            raise InputError("A vote is a JSON object.")
        return said

    def _guarded(self, answer: Any) -> None:
        try:
            self._json(answer())
        except InputError as error:
            self._json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        except UnderstudyError as error:
            self._json({"error": str(error)}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _picture(self, name: str) -> None:
        try:
            data = (self.server.pictures / name).read_bytes()
        except OSError:
            self._json({"error": "There is no such picture."}, HTTPStatus.NOT_FOUND)
            return
        self._send(data, "image/png", HTTPStatus.OK)

    def _file(self, name: str, kind: str) -> None:
        self._send((HERE / name).read_bytes(), kind, HTTPStatus.OK)

    def _json(self, said: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(said).encode(), "application/json", status)

    def _send(self, data: bytes, kind: str, status: HTTPStatus) -> None:
        self.send_response(status)
        for name, value in {**GUARDS, "Content-Type": kind}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is written about raters."""
