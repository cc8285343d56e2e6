"""The address of a server here: how it is opened, and whether a Host header names it."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

LOCAL = ("127.0.0.1", "localhost", "::1")
ANY = ("0.0.0.0", "::", "")


def opened(host: str, port: int) -> str:
    """The address that opens a server on this machine, which listens on host.

    A server of all interfaces is opened by the loopback: browsers need not take 0.0.0.0.
    """
    here = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{here}]:{port}/" if ":" in here else f"http://{here}:{port}/"


def serves(header: str | None, host: str, port: int) -> bool:
    """Whether a Host header names the address that is listened on.

    This stops DNS rebinding, where a page of a stranger's domain resolves to this machine.
    When all interfaces are served, any IP address and this machine's own name are accepted.
    """
    if header is None:
        return False
    try:
        parts = urlsplit(f"//{header}")
        name, found = parts.hostname, parts.port
    except ValueError:
        return False
    if name is None or header != parts.netloc or (found or 80) != port:
        return False
    if name == host or (host in LOCAL and name in LOCAL):
        return True
    return host in ANY and (_is_address(name) or name in _own_names())


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _own_names() -> tuple[str, ...]:
    name = socket.gethostname().lower()
    return ("localhost", name, f"{name}.local")
