"""A studio in a process of its own, and Debian's Chromium to use it like a person."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
AXE = Path(__file__).parent / "assets/axe-core/axe.min.js"
TABS = "learn swap edit drag generate gallery compare models settings".split()
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
SERVE = """
import sys
from pathlib import Path
from understudy.studio.config import Config
from understudy.studio.server import serve
serve(Config(data=Path(sys.argv[1]), port=int(sys.argv[2])), lambda line: print(line, flush=True))
"""
WAIT = 240_000  # milliseconds that the first picture of a process may take on a busy machine


class StudioProcess:
    """The server of a test: started, killed, started again on the same data and port."""

    def __init__(self, data: Path) -> None:
        self.data, self.port, self.address = data, 0, ""
        self.start()

    def start(self) -> None:
        """Serve, and wait for the address."""
        words = [sys.executable, "-c", SERVE, str(self.data), str(self.port)]
        quiet = {**os.environ, "UNDERSTUDY_CACHE": str(self.data / "cache")}
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=quiet)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address.startswith("http://127.0.0.1:"), "the server did not start"
        self.port = int(self.address.rstrip("/").rpartition(":")[2])

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.kill()
        self.process.communicate()

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()


class Tab:
    """A browser with one page, in a process group of its own: to be killed as a whole."""

    def __init__(self, address: str, profile: Path) -> None:
        self.address, self.profile = address, profile
        self.process: subprocess.Popen[bytes] | None = None
        self.open()

    def open(self) -> None:
        """Open the page; nothing where there is no Chromium."""
        if not CHROMIUM.exists():
            return
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        words = [str(CHROMIUM), *flags, "--remote-debugging-port=0"]  # the page stays open
        self.process = subprocess.Popen(
            [*words, f"--user-data-dir={self.profile}", self.address],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        """kill -9 of the browser with all its processes."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None


class Visit:
    """A page of the studio. requests: every address it asked for; faults: errors in its console."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.address = page, address
        self.requests: list[str] = []
        self.faults: list[str] = []
        self.open_requests = 0  # to the server of the test
        page.on("request", self._asked)
        for ended in ("requestfinished", "requestfailed"):
            page.on(ended, self._answered)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda line: self._heard(line.type, line.text))
        page.set_default_timeout(30_000)

    def _asked(self, request: Any) -> None:
        self.requests.append(request.url)
        self.open_requests += request.url.startswith(self.address)

    def _answered(self, request: Any) -> None:
        self.open_requests -= request.url.startswith(self.address)

    def _heard(self, kind: str, text: str) -> None:
        if kind == "error" and "Failed to load resource" not in text:
            self.faults.append(text)

    def open(self, tab: str) -> None:
        """Show a tab."""
        self.page.goto(f"{self.address}#{tab}")
        self.page.wait_for_selector(f"#title-{tab}:visible")

    def until(
        self,
        true: Callable[[], bool],
        seconds: float = 60,
        every: float = 0.05,
        moving: Callable[[], object] = lambda: None,
    ) -> None:
        """Wait for something; the page's own policy forbids Playwright's way, which uses eval.

        The time starts anew whenever `moving()` has another value: a busy machine is only slow.
        """
        ends, last = time.monotonic() + seconds, moving()
        while not true():
            now = moving()
            if now != last:
                ends, last = time.monotonic() + seconds, now
            assert time.monotonic() < ends, "it did not happen in time"
            self.page.wait_for_timeout(1000 * every)

    def painted(self) -> None:
        """Wait until what the page has asked to be drawn is on the screen, at most two seconds.

        A page that the browser does not draw, as one behind another, has no animation frames.
        """
        two = "requestAnimationFrame(() => requestAnimationFrame(() => r(0)))"
        self.page.evaluate(f"new Promise(r => {{ setTimeout(r, 2000); {two} }})")

    def settled(self) -> None:
        """Wait until every request is answered, and no answer has led to another.

        Playwright's own "networkidle" waits for half a second more.
        """
        quiet, ends = 0, time.monotonic() + 120
        while quiet < 3:
            assert time.monotonic() < ends, f"it does not stop asking: {self.requests[-5:]}"
            known = len(self.requests)
            self.painted()
            self.until(lambda: self.open_requests == 0, every=0.01)
            quiet = quiet + 1 if len(self.requests) == known else 0

    def axe(self) -> list[str]:
        """Serious findings of axe-core, one line each."""
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        grave = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
        return [f"{one['id']}: {one['nodes'][0]['html'][:160]}" for one in grave]

    def abroad(self) -> list[str]:
        """Requests to anything but the server of the test."""
        ours = (self.address, "blob:", "data:")
        return [one for one in self.requests if not one.startswith(ours)]

    def canvas(self) -> dict[str, str]:
        """What the drag's canvas shows."""
        return self.page.evaluate("({...document.querySelector('.drag canvas').dataset})")

    def place(self, x: float, y: float, selector: str = ".drag canvas") -> tuple[float, float]:
        """Where a pixel of a picture of 128 pixels lies on the screen."""
        box = self.page.locator(selector).bounding_box()
        scale = box["width"] / 128
        return box["x"] + (x + 0.5) * scale, box["y"] + (y + 0.5) * scale

    def click_pixel(self, x: float, y: float) -> None:
        """Click a pixel of the drag's picture."""
        self.page.mouse.click(*self.place(x, y))

    def tab_to(self, selector: str, most: int = 150) -> None:
        """Press Tab until the focus is on an element, as somebody without a mouse does."""
        asked = "s => document.activeElement !== null && document.activeElement.matches(s)"
        for _ in range(most):
            if self.page.evaluate(asked, selector):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach {selector}")

    def fill_by_keys(self, selector: str, text: str) -> None:
        """Reach a field by Tab and type over what it holds."""
        self.tab_to(selector)
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(text)


@contextmanager
def chromium() -> Iterator[Any]:
    """Debian's browser; skips where Playwright or the browser is missing."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip("there is no /usr/bin/chromium")
    with playwright.sync_playwright() as driver:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield browser
        browser.close()


def frames_of(page: Any) -> list[dict[str, Any]]:
    """The heads of the frames that a page receives from now on, in order."""
    heads: list[dict[str, Any]] = []

    def received(data: str | bytes) -> None:
        if isinstance(data, bytes):
            heads.append(json.loads(data[4 : 4 + int.from_bytes(data[:4], "big")]))

    page.on("websocket", lambda socket: socket.on("framereceived", received))
    return heads
