"""Starts the studio's server and waits for its end."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import uvicorn

from understudy.errors import InputError, OutputError
from understudy.studio.app import create_app
from understudy.studio.config import Config
from understudy.studio.security import Guard, link

GRACE = 3  # seconds that open connections get at the end
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error"}


class Server(uvicorn.Server):
    """Ends streams of events as soon as a signal asks for the end."""

    def __init__(self, config: uvicorn.Config, guard: Guard) -> None:
        super().__init__(config)
        self.guard = guard

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.guard.closing()
        super().handle_exit(sig, frame)


def serve(config: Config, told: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM. told: is given the address to open.

    Off loopback a token is made where none was given. Nothing is downloaded: the hub's cache is
    read, the hub is not asked. Raises OutputError where the port or the data folder is in use.
    """
    if not config.local and not config.token:
        config = replace(config, token=secrets.token_urlsafe(24))
    if config.token and len(config.token) < 8:
        raise InputError("A token must have at least 8 characters.")
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    os.environ["HF_HUB_OFFLINE"] = "1"  # whatever it was: workers are started with it
    line = _listening(config)
    port = int(line.getsockname()[1])
    guard = create_app(replace(config, port=port))
    rules: dict[str, Any] = {"log_level": "warning", "access_log": False, "server_header": False}
    asked = uvicorn.Config(
        guard,  # pyright: ignore[reportArgumentType]
        timeout_graceful_shutdown=GRACE,
        timeout_keep_alive=30,
        ws_max_size=2**20,
        **rules,
    )
    told(link(config, port))
    Server(asked, guard).run(sockets=[line])


def _listening(config: Config) -> socket.socket:
    """The socket, before anything else is opened."""
    try:
        kind = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        line = socket.socket(kind, socket.SOCK_STREAM)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        line.bind((config.host, config.port))
        line.listen(128)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"Cannot listen on {config.host}:{config.port}: {reason}. Try another --port."
        ) from error
    return line
