"""Live drags of the studio: an exact timeline, saved moments, and the process that serves them."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from understudy.drag.session import DragSession
from understudy.errors import InputError, OutputError
from understudy.generators.folder import load_generator
from understudy.settings.drag import DragSettings
from understudy.studio import drag_worker
from understudy.studio.drag_live import LiveDrag
from understudy.studio.drag_session import DragProcess, Listener, checked
from understudy.studio.drag_worker import _Desk  # pyright: ignore[reportPrivateUsage]

PAIR = ((60.0, 60.0), (60.0, 75.0))


@pytest.fixture(scope="module")
def generator() -> Any:
    return load_generator("toybox-gan")


def begun(generator: Any, **given: Any) -> LiveDrag:
    settings = DragSettings.filled(given)
    ws = generator.latents(generator.draw_z(3), truncation=settings.truncation)
    live = LiveDrag.begin(generator, ws, settings)
    live.points([PAIR])
    return live


def seen(live: LiveDrag) -> tuple[Any, ...]:
    """All that a page gets of a moment."""
    facts = live.facts()
    return facts["step"], facts["points"], facts["left"], live.frame()


def test_fifty_steps_undone_and_redone_are_the_same_frames(generator: Any) -> None:
    live = begun(generator)
    frames = {}
    for _ in range(50):
        live.advance()
        frames[live.at] = seen(live)
    assert len({frame[-1] for frame in frames.values()}) > 40, "the picture moves"
    places = sorted(frames)
    for place in [*reversed(places), *places]:
        live.goto(place)
        assert seen(live) == frames[place]
    # Frames that were dropped are drawn again from the latent; going on gives the same latents.
    before = [moment.shown.latent for moment in live.moments]
    live.goto(20)
    for place in range(21, 24):
        live.advance()
        assert bool((live.moments[place].shown.latent == before[place]).all())


def test_a_run_in_the_studio_is_the_drag_of_the_command_line(generator: Any) -> None:
    live = begun(generator, steps=6)
    live.run()
    while live.running:
        live.advance()
    start = live.moments[0].shown.start
    *_, last = DragSession.begin(generator, start, [PAIR], settings=live.settings).run(generator)
    assert bool((live.moment.shown.latent == last.latent).all())
    assert live.moment.end == "cap"
    assert live.facts()["why"]


def test_a_saved_moment_is_where_a_drag_of_one_step_ends(generator: Any, tmp_path: Path) -> None:
    live = begun(generator)
    for _ in range(6):
        live.advance()
    live.goto(live.at - 1)
    live.save(tmp_path / "drag.safetensors")
    *_, last = DragSession.load(tmp_path / "drag.safetensors").run(generator)
    assert bool((last.latent == live.moment.shown.latent).all())


def test_points_and_masks_are_moments_too(generator: Any) -> None:
    live = begun(generator)
    live.advance()
    live.advance()
    many = len(live.moments)
    live.points([*live.moment.shown.pairs, ((30.0, 30.0), (30.0, 40.0))])
    assert (live.facts()["kind"], len(live.facts()["points"])) == ("points", 2)
    live.goto(live.at - 1)
    assert len(live.facts()["points"]) == 1
    live.points([PAIR])
    assert len(live.moments) == many + 1, "what was undone is replaced by what is done now"
    with pytest.raises(InputError, match="outside"):
        live.points([((500.0, 5.0), (5.0, 5.0))])


@pytest.mark.parametrize(
    "command",
    [
        {"do": "exec"},
        [],
        {"do": "goto", "moment": -1},
        {"do": "goto", "moment": True},
        {"do": "points", "pairs": [[1, 2]]},
        {"do": "points", "pairs": [[[1, 2], [3, "4"]]]},
        {"do": "points", "pairs": [[[1, 2], [3, 4]]] * 65},
        {"do": "settings", "settings": 3},
    ],
)
def test_commands_of_pages_are_checked(command: Any) -> None:
    with pytest.raises(InputError):
        checked(command)


def test_only_declared_fields_reach_the_process() -> None:
    sent = checked({"do": "run", "path": "/etc/passwd", "session": "x", "re": 4})
    assert sent == {"do": "run", "re": 4}


def heads(news: list[str | bytes]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for one in news:
        text = one if isinstance(one, str) else one[4 : 4 + int.from_bytes(one[:4], "big")]
        found.append(json.loads(text))
    return found


def test_frames_of_a_run_carry_the_number_of_the_last_command(tmp_path: Path) -> None:
    # A page that is slow misses frames. The one it gets must still say what has been answered.
    ours, theirs = multiprocessing.Pipe()
    desk = _Desk(theirs, tmp_path)
    settings: dict[str, Any] = {"steps": 5}
    opening = {"do": "open", "generator": "toybox-gan", "seed": 3, "device": "cpu"}
    desk.answer({**opening, "settings": settings, "session": "a"})
    for number, command in enumerate(({"do": "points", "pairs": [PAIR]}, {"do": "run"}), 7):
        desk.answer({**command, "session": "a", "re": number})
    desk.turn()
    film = {"do": "film", "path": str(tmp_path / "film.gif"), "session": "a", "re": -5}
    desk.answer(film)
    desk.turn()
    messages: list[str | bytes] = []
    while ours.poll():
        messages.append(ours.recv_bytes())
    told = [(head["event"], head["re"]) for head in heads(messages)]
    frames = [("frame", number) for number in (0, 7, 8, 8)]
    assert told == [*frames, ("film", -5), ("frame", 8), ("frame", 8)]


def test_a_drag_takes_what_suits_its_generator(tmp_path: Path) -> None:
    """Like the command line, at the beginning and after settings were changed."""
    ours, theirs = multiprocessing.Pipe()
    desk = _Desk(theirs, tmp_path)
    opening = {"do": "open", "generator": "toybox-gan", "seed": 3, "device": "cpu"}
    desk.answer({**opening, "settings": {}, "session": "a"})
    suited = DragSettings.filled({}, "toybox-gan")
    assert suited != DragSettings.filled({})
    assert desk.drags["a"].settings == suited
    desk.answer({"do": "settings", "settings": {"r2": 9.0}, "session": "a", "re": 1})
    assert desk.drags["a"].settings == replace(suited, r2=9.0)
    assert desk.drags["a"].moment.shown.settings == replace(suited, r2=9.0)
    ours.close()


def test_one_step_moves_the_picture_by_one_step(tmp_path: Path) -> None:
    """The first one after points were set, too."""
    ours, theirs = multiprocessing.Pipe()
    desk = _Desk(theirs, tmp_path)
    opening = {"do": "open", "generator": "toybox-gan", "seed": 3, "device": "cpu"}
    desk.answer({**opening, "settings": {}, "session": "a"})
    desk.answer({"do": "points", "pairs": [PAIR], "session": "a", "re": 1})
    drag = desk.drags["a"]
    frames = [drag.frame()]
    for number in (1, 2):
        desk.answer({"do": "step", "session": "a", "re": 1 + number})
        assert (drag.facts()["step"], drag.running) == (number, False)
        frames.append(drag.frame())
    assert len(set(frames)) == 3
    ours.close()


def test_of_two_pages_none_waits_for_an_answer_that_was_given(tmp_path: Path) -> None:
    # The second page's numbers are smaller; the first page's answer must not be taken back.
    ours, theirs = multiprocessing.Pipe()
    desk = _Desk(theirs, tmp_path)
    for number in (900, 7):
        desk.answer({"do": "look", "session": "a", "re": number})
    assert desk._answered == {"a": 900}
    ours.close()


def desk_of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, _Desk]:
    """A desk where at most two drags are open, and its other end."""
    monkeypatch.setattr(drag_worker, "SESSIONS", 2)
    ours, theirs = multiprocessing.Pipe()
    return ours, _Desk(theirs, tmp_path)


def opened(name: str, seed: int) -> dict[str, Any]:
    settings: dict[str, Any] = {"steps": 5}
    opening = {"do": "open", "generator": "toybox-gan", "seed": seed, "device": "cpu"}
    return {**opening, "settings": settings, "session": name}


def told(pipe: Any, name: str) -> list[dict[str, Any]]:
    """What the pages of one session got since the last call."""
    messages: list[str | bytes] = []
    while pipe.poll():
        messages.append(pipe.recv_bytes())
    return [head for head in heads(messages) if head["session"] == name]


def test_a_drag_that_is_closed_for_another_says_so_and_opens_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, desk = desk_of_two(tmp_path, monkeypatch)
    desk.answer(opened("a", 1))
    desk.answer({"do": "points", "pairs": [PAIR], "session": "a", "re": 1})
    desk.answer(opened("b", 2))
    desk.answer({"do": "points", "pairs": [PAIR], "session": "b", "re": 1})
    desk.answer({"do": "step", "session": "a", "re": 2})
    shown = desk.drags["a"].frame()
    desk.answer({"do": "run", "session": "b", "re": 2})
    told(pipe, "a")
    desk.answer(opened("c", 3))
    assert [*desk.drags] == ["b", "c"], "b was used before a, but it runs"
    (news,) = told(pipe, "a")
    assert news["event"] == "closed"
    for said in ("at most 12 are open at once", "Open it again"):
        assert said in news["message"]
    desk.answer({"do": "run", "session": "a", "re": 3})
    (answer,) = told(pipe, "a")
    assert (answer["event"], answer["re"], answer["message"]) == ("error", 3, news["message"])
    desk.answer(opened("a", 1))
    assert desk.drags["a"].frame() == shown and "c" not in desk.drags
    assert [head["event"] for head in told(pipe, "a")] == ["frame"]
    desk.answer({"do": "look", "session": "x", "re": 1})
    assert told(pipe, "x")[0]["message"].startswith("This drag is not open.")
    pipe.close()


def test_a_drag_that_cannot_be_kept_is_not_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OutputError("Cannot write: the disk is full.")

    pipe, desk = desk_of_two(tmp_path, monkeypatch)
    for seed, name in enumerate("ab"):
        desk.answer(opened(name, seed))
    monkeypatch.setattr(LiveDrag, "keep", full)
    desk.answer(opened("c", 3))
    assert [*desk.drags] == ["a", "b"]
    (answer,) = told(pipe, "c")
    assert answer["event"] == "error" and "cannot be written to disk" in answer["message"]
    pipe.close()


def test_pages_hear_of_a_process_that_ended_while_a_command_was_sent(tmp_path: Path) -> None:
    process = DragProcess(tmp_path)
    ours, theirs = multiprocessing.Pipe()

    async def hear() -> list[dict[str, Any]]:
        listener = process.listen("a")
        theirs.close()  # the process ended; a command has started another one meanwhile
        process._pipe = None
        await asyncio.to_thread(process._read, ours)
        return heads(await asyncio.wait_for(listener.next(), 5))

    assert [head["event"] for head in asyncio.run(hear())] == ["died"]


@pytest.mark.slow  # torch is loaded twice
def test_a_killed_process_is_started_again_with_what_was_kept(tmp_path: Path) -> None:
    process = DragProcess(tmp_path)
    opening = {"do": "open", "generator": "toybox-gan", "seed": 3, "device": "cpu", "settings": {}}

    async def until(listener: Listener, wanted: Any) -> dict[str, Any]:
        while True:
            for head in heads(await asyncio.wait_for(listener.next(), 120)):
                if wanted(head):
                    return head

    async def drag() -> None:
        listener = process.listen("a")
        process.send("a", opening)
        await until(listener, lambda head: head["event"] == "frame")
        process.send("a", {"do": "points", "pairs": [PAIR], "re": 1})
        process.send("a", {"do": "step", "re": 2})
        process.send("a", {"do": "step", "re": 3})
        before = await until(listener, lambda head: head.get("re") == 3)
        assert before["step"] == 1
        file, step = tmp_path / "a.safetensors", 0
        for _ in range(200):  # it is written when nothing is left to do
            step = DragSession.load(file).state.step if file.is_file() else 0
            if step == 1:
                break
            await asyncio.sleep(0.05)
        process._process.kill()
        await until(listener, lambda head: head["event"] == "died")
        process.send("a", opening)
        after = await until(listener, lambda head: head["event"] == "frame")
        assert (after["step"], after["points"]) == (before["step"], before["points"])

    try:
        asyncio.run(drag())
    finally:
        process.close()
    assert process.pid is None
