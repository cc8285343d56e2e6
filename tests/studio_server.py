"""A studio server in a process of its own, to be killed: see test_studio_kills.py."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

SOURCE = Path(__file__).parent.parent / "src"


class Server:
    """`understudy studio` on a data folder, started again as often as need be."""

    def __init__(self, data: Path) -> None:
        self.data, self.process = data, None
        with socket.socket() as line:
            line.bind(("127.0.0.1", 0))
            self.port = line.getsockname()[1]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def start(self) -> float:
        """Start, wait until it answers; the seconds it took."""
        began = time.monotonic()
        words = [sys.executable, "-m", "understudy.cli", "studio", "--port", str(self.port)]
        places = {"PYTHONPATH": str(SOURCE), "UNDERSTUDY_CACHE": str(self.data.parent / "cache")}
        with (self.data.parent / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*words, "--data", str(self.data)],
                env={**os.environ, **places, "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
                cwd=self.data.parent,
            )
        while True:
            try:
                self.client.get("/api/version").raise_for_status()
                return time.monotonic() - began
            except httpx.HTTPError:
                assert self.process.poll() is None, (self.data.parent / "server.log").read_text()
                assert time.monotonic() - began < 240
                time.sleep(0.05)

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """kill -9 of the server."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End the server and the connection to it."""
        self.client.close()
        if self.alive():
            self.kill()

    def kill_worker(self) -> bool:
        """kill -9 of a worker; whether there was one."""
        file = self.data / "workers.pid"
        try:
            pid = int(file.read_text().split()[0])
            os.kill(pid, signal.SIGKILL)
        except (OSError, IndexError, ValueError):
            return False
        return True

    def stop(self) -> None:
        """SIGTERM, as a service manager sends it."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(60)

    def memory(self) -> float:
        """Resident memory of the server in MB."""
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")

    def submit(self, **wish: Any) -> str:
        answer = self.client.post("/api/jobs", json=wish)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def upload(self, content: bytes, name: str = "cat.png") -> str:
        answer = self.client.post("/api/uploads", files={"file": (name, content)})
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]
