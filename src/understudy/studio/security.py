"""Every request is checked here, before a route sees it: address, origin, token, size.

Host: only names of this server (against DNS rebinding). Origin: requests that change something,
and WebSockets, come from our own page or from no page at all. Token: off loopback, on every route.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlencode

from starlette.exceptions import HTTPException

from understudy.evaluate.study.hosts import opened, serves
from understudy.studio.config import Config
from understudy.studio.login_page import STYLE, login_page

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "understudy"
LOGIN = "/api/login"
TRIES, WINDOW = 5, 60.0  # wrong tokens of one address, and of a minute
ALL_TRIES = 30  # wrong tokens of all addresses in a window
SESSION = 30 * 24 * 3600  # seconds a login lasts
SAFE = ("GET", "HEAD", "OPTIONS")
CSP = (
    "default-src 'none'; img-src 'self' blob: data:; media-src 'self' blob:; script-src 'self'; "
    f"style-src 'self' {STYLE}; connect-src 'self'; font-src 'self'; manifest-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
GUARDS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Throttle:
    """Counts wrong tokens: at most TRIES a minute of one address, ALL_TRIES of all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wrong: deque[tuple[float, str]] = deque()

    def blocked(self, address: str) -> bool:
        """Whether this address has to wait."""
        with self._lock:
            self._forget()
            mine = sum(one == address for _, one in self._wrong)
            return mine >= TRIES or len(self._wrong) >= ALL_TRIES

    def wrong(self, address: str) -> None:
        """Note a wrong token."""
        with self._lock:
            self._forget()
            self._wrong.append((time.monotonic(), address))

    def _forget(self) -> None:
        old = time.monotonic() - WINDOW
        while self._wrong and self._wrong[0][0] < old:
            self._wrong.popleft()


class Guard:
    """The ASGI application around the application. `port` is 0 until the server listens."""

    def __init__(
        self, app: App, config: Config, closing: Callable[[], None] = lambda: None
    ) -> None:
        self.app, self.config, self.closing = app, config, closing
        self.throttle = Throttle()
        self._key = secrets.token_bytes(32)  # of cookies: a new server asks to sign in again

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        heads = _heads(scope)
        refused = self._refused(scope, heads)
        if refused is not None:
            return await _answer(scope, send, *refused)
        if self.config.token and not self._knows(heads):
            return await self._unknown(scope, heads, receive, send)
        if scope["type"] == "websocket":
            return await self.app(scope, receive, send)
        if scope["path"] == LOGIN:
            return await self._login(scope, heads, receive, send)
        limit = self._limit(scope["path"])
        if int(heads.get("content-length") or 0) > limit:
            return await _answer(
                scope, send, 413, f"The request is too large: at most {limit // 2**20} MB."
            )
        await self.app(scope, _counted(receive, limit), _guarded(send))

    def _refused(self, scope: Scope, heads: dict[str, str]) -> tuple[int, str] | None:
        """Why a request is refused whoever sends it; None where it is not."""
        many = sum(1 for name, _ in scope["headers"] if name == b"host")
        host = heads.get("host")
        port = (scope.get("server") or ("", self.config.port))[1] or self.config.port
        if many != 1 or not serves(host, self.config.host, port):
            return 403, "Open the address that understudy printed."
        origin, site = heads.get("origin"), heads.get("sec-fetch-site")
        ours = origin in (f"http://{host}", f"https://{host}")
        changes = scope["type"] == "websocket" or scope["method"] not in SAFE
        if changes and origin is not None and not ours:
            return 403, "Requests of other pages are refused. Use the studio's own page."
        if site in ("cross-site", "same-site") and (changes or scope["path"].startswith("/api")):
            return 403, "Requests of other pages are refused. Use the studio's own page."
        length = heads.get("content-length", "0")
        if not (length.isascii() and length.isdigit() and len(length) < 16):
            return 400, "The length of the request is not a number."
        return None

    def _limit(self, path: str) -> int:
        """Bytes of a request's body."""
        uploads = path.startswith(("/api/uploads", "/api/masks", "/api/recipe"))
        return self.config.max_upload + 2**20 if uploads else self.config.max_json

    def _knows(self, heads: dict[str, str]) -> bool:
        """Whether a request shows the token or a cookie of ours."""
        kind, _, shown = heads.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _same(shown.strip(), self.config.token):
            return True
        try:
            cookie = SimpleCookie(heads.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and self._valid(cookie.value)

    async def _unknown(
        self, scope: Scope, heads: dict[str, str], receive: Receive, send: Send
    ) -> None:
        """Sign in, or be told that one must."""
        if scope["type"] == "websocket":
            return await _answer(scope, send, 401, "")
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if scope["path"] == LOGIN or (scope["path"] == "/" and asked):
            return await self._login(scope, heads, receive, send, asked)
        if heads.get("authorization"):
            address = _address(scope)
            if self.throttle.blocked(address):
                return await _answer(scope, send, 429, "Too many wrong tokens. Wait a minute.")
            self.throttle.wrong(address)
        page = login_page() if scope["path"] == "/" and _reads_pages(heads) else None
        await _answer(scope, send, 401, "Sign in with the token.", page)

    async def _login(
        self, scope: Scope, heads: dict[str, str], receive: Receive, send: Send, asked: str = ""
    ) -> None:
        """Take the token from a form or the link, and answer with a cookie."""
        address = _address(scope)

        async def refused(status: int, text: str) -> None:
            page = login_page(text) if _reads_pages(heads) else None
            await _answer(scope, send, status, text, page)

        if self.throttle.blocked(address):
            return await refused(429, "Too many wrong tokens. Wait a minute.")
        if not asked and scope["method"] == "POST":
            body = await _body(receive, 4096)
            asked = parse_qs(body.decode("latin-1")).get("token", [""])[0]
        if self.config.token and not _same(asked, self.config.token):
            self.throttle.wrong(address)
            return await refused(401, "The token is wrong.")
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        rules = f"Path=/; Max-Age={SESSION}; HttpOnly; SameSite=Strict{secure}"
        cookie = f"{COOKIE}={self._stamp()}; {rules}"
        heads_out = [(b"location", b"/"), (b"set-cookie", cookie.encode())]
        await _respond(send, 303, b"", b"text/plain", heads_out)

    def _stamp(self) -> str:
        until = str(int(time.time()) + SESSION)
        return f"{until}.{self._sign(until)}"

    def _valid(self, stamp: str) -> bool:
        until, _, sign = stamp.partition(".")
        good = _same(sign, self._sign(until))
        return good and until.isascii() and until.isdigit() and int(until) > time.time()

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), "sha256").hexdigest()


def _same(one: str, other: str) -> bool:
    """Compare in a time that says nothing of where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


def _reads_pages(heads: dict[str, str]) -> bool:
    """Whether a browser asks, not a program."""
    return "text/html" in heads.get("accept", "")


def _heads(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _address(scope: Scope) -> str:
    return str((scope.get("client") or ("",))[0])


async def _body(receive: Receive, most: int) -> bytes:
    body = b""
    while len(body) <= most:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return body[:most]


class TooLarge(HTTPException):
    """A body that is longer than it may be. FastAPI passes HTTPException on as it is."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"The request is too large: at most {limit // 2**20} MB.")


def _counted(receive: Receive, limit: int) -> Receive:
    """The body, cut off where it is longer than it may be (its length need not be told)."""
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise TooLarge(limit)
        return message

    return counted


def _guarded(send: Send) -> Send:
    """Answers with the headers that browsers are to obey."""

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            there = {name for name, _ in message["headers"]}
            more = [(k.encode(), v.encode()) for k, v in GUARDS.items() if k.encode() not in there]
            message["headers"] = [*message["headers"], *more]
        await send(message)

    return guarded


async def _answer(
    scope: Scope, send: Send, status: int, text: str, page: bytes | None = None
) -> None:
    """One line as JSON, or a page."""
    kinds = "http.response"
    if scope["type"] == "websocket":
        kinds = "websocket.http.response"
        if kinds not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": 1008})
            return
    body = json.dumps({"error": text}).encode() if page is None else page
    kind = b"application/json" if page is None else b"text/html; charset=utf-8"
    await _respond(send, status, body, kind, [], kinds)


async def _respond(
    send: Send,
    status: int,
    body: bytes,
    kind: bytes,
    heads: list[tuple[bytes, bytes]],
    kinds: str = "http.response",
) -> None:
    more = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    more += [(k.encode(), v.encode()) for k, v in GUARDS.items()]
    await send({"type": f"{kinds}.start", "status": status, "headers": [*heads, *more]})
    await send({"type": f"{kinds}.body", "body": body})


def link(config: Config, port: int) -> str:
    """The address to open on this machine, with the token where one is asked for."""
    asked = "?" + urlencode({"token": config.token}) if config.token else ""
    return opened(config.host, port) + asked
