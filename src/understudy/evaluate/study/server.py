"""The page that asks, served from this machine to raters on this machine or network.

The standard library's server: a few raters, small pictures, nothing from elsewhere. It answers with
questions that say nothing of methods; study.json itself is never served.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from understudy.errors import InputError, OutputError, UnderstudyError, sentence
from understudy.evaluate.study.hosts import serves
from understudy.evaluate.study.questions import read
from understudy.evaluate.study.votes import Votes
from understudy.files.reading import parse_json, read_bytes

VOTES = "votes.sqlite"
HERE = Path(__file__).parent
FILES = {  # what is served beside questions and pictures
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
_RATER = re.compile(r"/r/([\w-]{8,64})")
_ASK = re.compile(r"/ask/([\w-]{8,64})")
_PICTURE = re.compile(r"/pictures/([0-9a-f]{20}\.png)")
MAX_PICTURE = 64 * 2**20  # bytes of a picture that is served
MAX_BODY = 4096  # bytes
THREADS = 64  # requests answered at once; the rest wait in the backlog
TIMEOUT = 15.0  # seconds that a connection may stay silent
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
    request_queue_size = 256  # connections that wait: 200 voters may press a key at once

    def __init__(self, folder: Path, *, host: str = "127.0.0.1", port: int = 8300) -> None:
        self.votes = Votes(folder / VOTES, read(folder))
        self.pictures = folder / "pictures"
        self.host = host.lower()
        self._free = threading.BoundedSemaphore(THREADS)
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            reason = sentence(getattr(error, "strerror", None) or error)
            raise OutputError(f"Cannot listen on {host}:{port}: {reason} Try another.") from error

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for the request as soon as fewer than THREADS are at work."""
        if not self._free.acquire(timeout=TIMEOUT):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A fault in one request never prints a traceback and never stops the server."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # a peer that went away is no news
            print(f"a request failed: {type(error).__name__}", file=sys.stderr)

    def serves(self, host: str | None) -> bool:
        """Whether a Host header names the address served."""
        return serves(host, self.host, self.server_address[1])


class Handler(BaseHTTPRequestHandler):
    """One request. Paths: / and /r/WORD (the page), /begin, /ask/WORD, /pictures/NAME."""

    server: StudyServer  # pyright: ignore[reportIncompatibleVariableOverride]
    server_version, sys_version = "understudy", ""
    timeout = TIMEOUT

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, work: Callable[[str], None]) -> None:
        """Check the Host, then answer; whatever a request breaks becomes a status code."""
        try:
            path = urlsplit(self.path).path
        except ValueError:
            self._json({"error": "That is not an address."}, HTTPStatus.BAD_REQUEST)
            return
        hosts = self.headers.get_all("Host") or [None]
        if len(hosts) != 1 or not self.server.serves(hosts[0]):
            said = {"error": "Open the address that understudy printed."}
            self._json(said, HTTPStatus.MISDIRECTED_REQUEST)
            return
        try:
            work(path)
        except OSError:  # the rater went away, or was silent for too long
            self.close_connection = True
        except Exception as error:
            print(f"a request failed: {type(error).__name__}", file=sys.stderr)
            self._json({"error": "That failed."}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _get(self, path: str) -> None:
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

    def _post(self, path: str) -> None:
        if not self._from_our_page():
            self._json({"error": "Votes are taken from our own page only."}, HTTPStatus.FORBIDDEN)
        elif path == "/begin":
            self._guarded(lambda: {"rater": self.server.votes.join()})
        elif found := _ASK.fullmatch(path):
            self._guarded(lambda: self._vote(found[1]))
        else:
            self._json({"error": "There is nothing here."}, HTTPStatus.NOT_FOUND)

    def _from_our_page(self) -> bool:
        """Whether a POST comes from the page itself: browsers say so in one of two headers.

        Without Origin, Sec-Fetch-Site has to say same-origin, or else the body has to be JSON,
        which a page of another site cannot send without asking first (CORS).
        """
        origin = self.headers.get("Origin")
        if origin is not None:
            return origin == f"http://{self.headers.get('Host')}"
        site = self.headers.get("Sec-Fetch-Site")
        if site is not None:
            return site == "same-origin"
        return self.headers.get_content_type() == "application/json"

    def _next(self, token: str) -> dict[str, Any]:
        """Where the rater stands, and the next question as it may be shown."""
        done, question = self.server.votes.next(token)
        total = len(self.server.votes.study.sheets[self.server.votes.sheet(token)])
        shown = None if question is None else question.shown()
        return {"done": done, "total": total, "question": shown}

    def _vote(self, token: str) -> dict[str, Any]:
        said = self._body()
        seconds = said.get("seconds", 0)
        seconds = float(min(max(seconds, 0), 86400)) if isinstance(seconds, int | float) else 0.0
        question, answer = str(said.get("question")), str(said.get("answer"))
        self.server.votes.vote(token, question, answer, seconds)
        return self._next(token)

    def _body(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        digits = length.isascii() and length.isdigit() and len(length) < 8
        if not digits or int(length) > MAX_BODY:
            raise InputError(f"A vote has at most {MAX_BODY} bytes.")
        said = parse_json(self.rfile.read(int(length)), "A vote", most=MAX_BODY)
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
            data = read_bytes(self.server.pictures / name, most=MAX_PICTURE)
        except InputError:
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
