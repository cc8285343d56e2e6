"""What the studio is started with, and where it keeps its data."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PORT = 8400


def data_folder() -> Path:
    """Where the studio keeps its data: UNDERSTUDY_DATA, or ~/.local/share/understudy."""
    chosen = os.environ.get("UNDERSTUDY_DATA")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "understudy"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one studio server.

    data: folder of jobs, uploads, results, concepts and the database. token: asked for on every
    route; "" asks for none, which is for loopback addresses only. models: folders whose models
    and generators can be chosen besides the built-in ones. concepts: folders of concepts besides
    those in `data`. devices: one worker process for each.
    """

    data: Path = field(default_factory=data_folder)
    host: str = "127.0.0.1"
    port: int = PORT
    token: str = ""
    models: tuple[Path, ...] = ()
    concepts: tuple[Path, ...] = ()
    devices: tuple[str, ...] = ("auto",)
    max_upload: int = 64 * 2**20  # bytes of one file
    max_json: int = 2**20  # bytes of a request that is no upload

    @property
    def local(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in LOOPBACK

    @property
    def store(self) -> Path:
        """Where learnt concepts are written."""
        return self.data / "concepts"
