"""What a page is sent of a live drag: frames no faster than it draws them, and why a GPU replays no
graph. A drag that runs when the server stops is kept."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from test_drag_recorded import Refusing, as_on_a_gpu
from test_studio_security import HOME, opened
from understudy.drag import engine as engine_module
from understudy.drag.session import DragSession
from understudy.studio.drag_session import AHEAD, DragProcess, Listener
from understudy.studio.drag_worker import _Desk, packed, serve  # pyright: ignore[reportPrivateUsage]

FRAME = {"event": "frame", "session": "a"}


def show(listener: Listener, number: int) -> None:
    listener.tell(FRAME, packed({**FRAME, "step": number}, b"jpeg"))


async def news(listener: Listener) -> list[Any]:
    """Steps of frames and names of events that are sent now; empty: it waits."""
    try:
        found = await asyncio.wait_for(listener.next(), 0.05)
    except TimeoutError:
        return []
    return [json.loads(one)["event"] if isinstance(one, str) else step_of(one) for one in found]


def step_of(message: bytes) -> int:
    return json.loads(message[4 : 4 + int.from_bytes(message[:4], "big")])["step"]


def test_a_page_is_never_more_than_two_frames_behind() -> None:
    async def watch() -> None:
        listener = Listener(acknowledges=True)
        for number in range(1, AHEAD + 1):
            show(listener, number)
            assert await news(listener) == [number]
        for number in range(3, 8):
            show(listener, number)
            assert await news(listener) == []
        listener.tell({"event": "note"}, b"")
        assert await news(listener) == ["note"], "lines do not wait for frames"
        listener.drawn()
        assert await news(listener) == [7], "the newest one; those between are left out"
        listener.drawn()
        assert await news(listener) == []
        show(listener, 8)
        assert await news(listener) == [8]

    asyncio.run(watch())


def test_acknowledging_too_often_sends_nothing_ahead() -> None:
    async def watch() -> None:
        listener = Listener(acknowledges=True)
        for _ in range(5):
            listener.drawn()
        sent = 0
        for number in range(5):
            show(listener, number)
            sent += len(await news(listener))
        assert sent == AHEAD

    asyncio.run(watch())


def test_who_does_not_acknowledge_gets_every_frame_in_time() -> None:
    async def watch() -> None:
        listener = Listener()
        for number in range(5):
            show(listener, number)
            assert await news(listener) == [number]

    asyncio.run(watch())


def test_the_route_counts_what_the_page_has_drawn(tmp_path: Path) -> None:
    commands: list[dict[str, Any]] = []

    class Fake(DragProcess):
        """Shows a frame for every command."""

        def send(self, session: str, command: dict[str, Any]) -> None:
            commands.append(command)
            for listener in list(self._listeners.get(session, ())):
                show(listener, len(commands))

    with opened(tmp_path) as client:
        client.app.app.state.studio.drags = Fake(tmp_path)  # type: ignore[attr-defined]
        begin = client.post("/api/drag/sessions", json={"generator": "toybox-gan", "seed": 3})
        path = f"{HOME.replace('http', 'ws')}/api/drag/sessions/{begin.json()['id']}"
        with client.websocket_connect(f"{path}?acknowledge=1") as page:
            assert step_of(page.receive_bytes()) == 1
            page.send_json({"do": "look"})
            assert step_of(page.receive_bytes()) == 2
            for _ in range(4):
                page.send_json({"do": "look"})
            page.send_json({"do": "nonsense"})  # answered with a line, in order
            assert page.receive_json()["event"] == "error"
            page.send_json({"do": "drawn"})
            assert step_of(page.receive_bytes()) == 6
    assert [one["do"] for one in commands] == ["open", *["look"] * 5]


@pytest.mark.parametrize("told", [True, False])
def test_a_running_drag_is_kept_when_the_server_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """Told to end, and where the pipe is closed, as by a server that was killed."""

    def handle(number: int, action: Any) -> None:
        """Handlers can be set in the main thread only; the process runs in another one here."""

    monkeypatch.setattr(signal, "signal", handle)
    ours, theirs = multiprocessing.Pipe()
    worker = threading.Thread(target=serve, args=(theirs, str(tmp_path)))
    worker.start()
    settings = {"stall_steps": 0, "steps": 10_000}
    opening = {"do": "open", "generator": "toybox-gan", "seed": 3, "device": "cpu"}
    far = [[[60, 60], [112, 60]]]
    for command in (
        {**opening, "settings": settings}, {"do": "points", "pairs": far}, {"do": "run"}
    ):  # fmt: skip
        ours.send_bytes(json.dumps({**command, "session": "a"}).encode())
    steps, running = 0, True
    while running and steps < 3:
        message = ours.recv_bytes()
        head = json.loads(message[4 : 4 + int.from_bytes(message[:4], "big")])
        steps = head["step"]
    assert not list(tmp_path.iterdir()), "it is written when it stands still"
    if told:
        ours.send_bytes(b'{"do": "end"}')
        while True:
            try:
                ours.recv_bytes()
            except EOFError:
                break
    ours.close()
    worker.join(30)
    assert not worker.is_alive()
    assert DragSession.load(tmp_path / "a.safetensors").state.step >= 3


def test_a_page_is_told_once_why_there_is_no_cuda_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "prefers_whole_map", as_on_a_gpu)
    monkeypatch.setattr(engine_module, "CUDACapture", Refusing)
    ours, theirs = multiprocessing.Pipe()
    desk = _Desk(theirs, tmp_path)
    opening = {"do": "open", "generator": "toybox-gan", "seed": 3, "device": "cpu"}
    for name in "ab":
        desk.answer({**opening, "settings": {}, "session": name})
        desk.answer({"do": "points", "pairs": [[[60, 60], [112, 60]]], "session": name})
        for _ in range(6):
            desk.answer({"do": "step", "session": name})
    notes = list[tuple[str, str]]()
    while ours.poll():
        message = ours.recv_bytes()
        head = json.loads(message[4 : 4 + int.from_bytes(message[:4], "big")])
        notes += [(head["session"], head["message"])] if head["event"] == "note" else []
    line = "The drag runs without a CUDA graph: operation not permitted when stream is capturing."
    assert notes == [("a", line), ("b", line)]
