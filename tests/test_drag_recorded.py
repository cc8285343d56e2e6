"""Steps that are recorded and replayed: the same drag as step by step, on static memory."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache, partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.stand_in_gpu import GPU, Replaying, moved, stand_in, watched
from cases import few
from test_stylegan2 import small as stylegan2
from test_stylegan3 import small as stylegan3
from understudy.cuda_graphs.proof import LEAST
from understudy.cuda_graphs.tensor_tree import copied, tensors_of
from understudy.drag import DragSession, drag_steps
from understudy.drag import engine as engine_module
from understudy.drag.engine import Engine
from understudy.drag.recorded import EAGER, MOST, Recordings
from understudy.drag.seeing import FlowTracker
from understudy.drag.state import Findings, State
from understudy.generators.stylegan2.generator import StyleGAN2
from understudy.generators.stylegan3.generator import StyleGAN3
from understudy.settings.drag import DragSettings

POINTS = torch.tensor([[30.0, 28.0], [20.0, 40.0], [45.0, 22.0]]).double()
WAYS = torch.tensor([[0.0, 9.0], [7.0, -3.0], [-6.0, 6.0]]).double()
STEPS = 10
# r1 is 2.25 pixels here: pixels exactly r1 away are in the disc or not by rounding.
HOW = {"learning_rate": 0.01, "r1": 18.0, "r2": 32.0, "layers": 4}


@cache
def model_of(name: str) -> StyleGAN2 | StyleGAN3:
    """In float64: what differs is then no rounding."""
    if name == "stylegan2":
        return stylegan2(img_resolution=64).double()
    return deepcopy(stylegan3(dtype=torch.float64)).double()


def movable() -> Tensor:
    mask = torch.zeros(1, 1, 64, 64).double()
    mask[:, :, 10:50, 12:56] = 1
    return mask


def engine_of(name: str, *, masked: bool = False, **values: Any) -> Engine:
    """Step by step, with windows, as on a CPU."""
    model = model_of(name)
    start = model.latents(model.draw_z(3), truncation=0.7).double()
    settings = DragSettings.filled({**HOW, **values})
    return Engine.made(model, start, settings, movable() if masked else None)


def as_on_a_gpu(device: torch.device) -> bool:
    return True


def recorded(engine: Engine, capturer: Any = None) -> Engine:
    return replace(engine, whole=True, capturer=capturer or Replaying())


def recordings(engine: Engine) -> Recordings:
    assert engine.recordings is not None
    return engine.recordings


def begun(engine: Engine, count: int) -> State:
    return engine.begin(POINTS[:count], POINTS[:count] + WAYS[:count])


def walk(engine: Engine, state: State, steps: int) -> list[tuple[Findings, State]]:
    taken: list[tuple[Findings, State]] = []
    for _ in range(steps):
        found, state = engine.step(state)
        taken.append((found, state))
    return taken


def alike(some: list[tuple[Findings, State]], others: list[tuple[Findings, State]]) -> None:
    for (found, state), (wanted, right) in zip(some, others, strict=True):
        pairs = [(found.points, wanted.points), (found.left, wanted.left)]
        pairs += [(found.motion, wanted.motion), (found.moving_ws, wanted.moving_ws)]
        pairs += [(getattr(state, one), getattr(right, one)) for one in
                  ("moving_ws", "first", "second", "points")]  # fmt: skip
        losses = [torch.tensor([f.mask, f.latent, f.total]).double() for f in (found, wanted)]
        for one, other in (*pairs, losses):
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10, equal_nan=True)
        assert (found.reached, found.doubtful) == (wanted.reached, wanted.doubtful)
        assert (state.count, state.step) == (right.count, right.step)


# Any two choices are together in one of the quick cases.
REPLAYED = product(("stylegan2", "stylegan3"), (1, 3), (False, True), ("w", "w+"))
PAIRED = [
    ("stylegan2", 1, False, "w"), ("stylegan2", 3, True, "w+"), ("stylegan3", 1, True, "w+"),
    ("stylegan3", 3, False, "w+"), ("stylegan3", 3, True, "w"),
]  # fmt: skip


@pytest.mark.parametrize("name, count, masked, space", few(REPLAYED, PAIRED))
def test_a_replayed_drag_is_the_drag(name: str, count: int, masked: bool, space: str) -> None:
    plain = engine_of(name, masked=masked, space=space)
    replayed = recorded(plain)
    some = walk(replayed, begun(replayed, count), STEPS)
    alike(some, walk(plain, begun(plain, count), STEPS))
    made = recordings(replayed)
    assert made.failure == ""
    # The first step makes the anchor, the next ones fill caches.
    assert made.replays == STEPS - 1 - EAGER
    assert plain.recordings is None
    # The drag moved.
    assert not torch.equal(some[-1][1].moving_ws, some[0][1].moving_ws)


@pytest.mark.parametrize(
    "values",
    [
        {"preset": "official"}, {"preset": "mirrored"}, {"preset": "paper"},
        {"principal": True, "prior_weight": 0.1}, {"latent_weight": 1.0},
        {"feature_resolution": 32, "tracking_resolution": 64},
        {"learning_rate": 0.3, "doubt": 0.05},
    ],
)  # fmt: skip
def test_under_all_kinds_of_settings(values: dict[str, Any]) -> None:
    plain = engine_of("stylegan2", masked=True, **values)
    replayed = recorded(plain)
    some = walk(replayed, begun(replayed, 2), STEPS)
    alike(some, walk(plain, begun(plain, 2), STEPS))
    assert recordings(replayed).replays > 0


def test_a_doubtful_search_is_recorded_for_itself() -> None:
    plain = engine_of("stylegan2", learning_rate=0.02, doubt=0.05)
    replayed = recorded(plain)
    some = walk(replayed, begun(replayed, 3), 16)
    assert {found.doubtful for found, _ in some} == {False, True}
    alike(some, walk(plain, begun(plain, 3), 16))
    assert len(recordings(replayed)) <= MOST


def test_states_are_values() -> None:
    """No later replay changes an earlier state, and a drag goes on from any of them."""
    engine = recorded(engine_of("stylegan2", masked=True))
    first = walk(engine, begun(engine, 3), STEPS)
    copies = [copied(state) for _, state in first]
    replays = recordings(engine).replays
    alike(walk(engine, first[4][1], STEPS - 5), first[5:])
    alike(walk(engine, first[4][1].light(), STEPS - 5), first[5:])  # as a saved session, undone
    assert recordings(engine).replays == replays + 2 * (STEPS - 5)
    for (_, state), copy in zip(first, copies, strict=True):
        for one, other in zip(tensors_of(state), tensors_of(copy), strict=True):
            assert torch.equal(one, other)


def test_points_moved_by_hand_are_anchored_anew() -> None:
    plain = engine_of("stylegan2")
    replayed = recorded(plain)
    ends: list[list[tuple[Findings, State]]] = []
    for engine in (replayed, plain):
        _, middle = walk(engine, begun(engine, 3), 6)[-1]
        points = middle.points + 2
        again = replace(middle, points=points, anchor=None, doubtful=False)
        more = replace(again, points=points[:2], targets=again.targets[:2])
        ends.append([*walk(engine, again, 6), *walk(engine, more, 6)])
    alike(*ends)
    # The same number of points: the same recording, with the features of the new anchor.
    assert recordings(replayed).replays == 3 + 5 + 3
    assert len(recordings(replayed)) == 2


def test_recordings_are_bounded_and_of_one_engine() -> None:
    engine = recorded(engine_of("stylegan2"))
    for count in (1, 2, 3):
        walk(engine, begun(engine, count), 5)
    made = recordings(engine)
    assert len(made) == MOST and made.replays == 3 * 2
    assert recordings(replace(engine, grid=engine.grid)) is not made


class Refusing(Replaying):
    """A capturer that cannot."""

    def __init__(self, shared: bool = True) -> None:
        self.asked = 0

    def captured(self, run: Callable[[], Any], device: torch.device) -> Any:
        self.asked += 1
        raise RuntimeError("operation not permitted when stream is capturing\nand more lines")


def test_what_cannot_be_recorded_runs_as_it_is() -> None:
    plain, capturer = engine_of("stylegan2"), Refusing()
    engine = recorded(plain, capturer)
    alike(walk(engine, begun(engine, 3), 6), walk(plain, begun(plain, 3), 6))
    assert capturer.asked == 1
    assert recordings(engine).failure == "operation not permitted when stream is capturing"


def test_a_step_says_why_it_was_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("stylegan2")
    latent = model.latents(model.draw_z(3), truncation=0.7).double()
    monkeypatch.setattr(engine_module, "prefers_whole_map", as_on_a_gpu)
    monkeypatch.setattr(engine_module, "CUDACapture", Refusing)
    settings = DragSettings.filled({**HOW, "steps": 5})
    notes = [
        one.note for one in drag_steps(model, latent, (((28, 30), (37, 30)),), settings=settings)
    ]
    assert notes[0] == "" and notes[-1].startswith("operation not permitted")


def test_trackers_that_see_pictures_are_not_recorded() -> None:
    flow = FlowTracker(lambda first, second: torch.zeros(1, 2, 64, 64).double())
    engine = replace(recorded(engine_of("stylegan2")), tracker=flow)
    assert engine.recordings is None
    assert len(walk(engine, begun(engine, 1), 4)) == 4


def test_sessions_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the public functions: pictures, undo and going on, as on a GPU and as on a CPU."""
    model = model_of("stylegan2")
    latent = model.latents(model.draw_z(3), truncation=0.7).double()
    settings = DragSettings.filled({**HOW, "steps": 8})
    pairs = (((28.0, 30.0), (37.0, 30.0)), ((40.0, 20.0), (37.0, 27.0)))

    def run() -> list[Any]:
        steps = list(drag_steps(model, latent, pairs, settings=settings, draw_every=1))
        session: DragSession = steps[-1].session
        return [*steps, *session.undo().run(model), *session.run(model)]

    expected = run()

    monkeypatch.setattr(engine_module, "prefers_whole_map", as_on_a_gpu)
    monkeypatch.setattr(engine_module, "CUDACapture", Replaying)
    for one, other in zip(run(), expected, strict=True):
        assert one.note == ""
        torch.testing.assert_close(one.latent, other.latent, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(torch.tensor(one.points), torch.tensor(other.points))
        if other.picture is not None:
            torch.testing.assert_close(one.picture, other.picture, rtol=1e-6, atol=1e-8)


READ: list[dict[str, Any]] = [
    {}, {"preset": "official"}, {"preset": "paper"}, {"principal": True},
    {"latent_weight": 1.0, "feature_resolution": 32, "tracking_resolution": 64},
]  # fmt: skip


@pytest.mark.parametrize(
    "name, values",
    few(product(("stylegan2", "stylegan3"), READ),
        [*(("stylegan2", one) for one in READ), ("stylegan3", {})]),
)  # fmt: skip
def test_a_recorded_step_reads_nothing(name: str, values: dict[str, Any]) -> None:
    """The stand-in refuses to record what a GPU would: reads, and copies between devices."""
    model = stylegan2(img_resolution=64) if name == "stylegan2" else stylegan3(dtype=torch.float32)
    model, settings = deepcopy(model), DragSettings.filled({**HOW, **values})
    start = model.latents(model.draw_z(3), truncation=0.7)
    with stand_in():
        moved(model)
        engine = Engine.made(model, start.to("cuda"), settings, movable().float().to("cuda"))
        state = engine.begin(POINTS.float(), (POINTS + WAYS).float())
        _, state = walk(engine, state, 1 + EAGER + LEAST)[-1]
        with watched() as waits:
            walk(engine, state, 3)
    made = recordings(engine)
    assert made.failure == "" and made.replays == LEAST + 3
    assert waits.host == {"copy to the host": 3} and waits.sent == 0


def test_the_stand_in_refuses_to_record_a_read() -> None:
    def read(x: Tensor) -> Tensor:
        return x * x.sum().item()

    def solved(x: Tensor) -> Tensor:
        return torch.linalg.solve(x, x)

    for function in (read, solved):
        with stand_in(), pytest.raises(RuntimeError, match="not permitted"):
            Replaying().captured(partial(function, torch.eye(2).to("cuda")), GPU)


@pytest.mark.gpu
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["stylegan2", "stylegan3"])
def test_a_cuda_graph_is_the_drag(name: str, masked: bool) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model = stylegan2(img_resolution=64) if name == "stylegan2" else stylegan3(dtype=torch.float64)
    model = deepcopy(model).double().to("cuda")
    start = model.latents(model.draw_z(3), truncation=0.7).double()
    mask = movable().to("cuda") if masked else None
    replayed = Engine.made(model, start, DragSettings.filled(HOW), mask)
    plain = replace(replayed, capturer=None)
    some = walk(replayed, begun(replayed, 3), STEPS)
    pictures = [replayed.held.picture(replayed.layers(found.moving_ws)) for found, _ in some[-2:]]
    alike(some, walk(plain, begun(plain, 3), STEPS))
    made = recordings(replayed)
    assert (made.failure, made.replays) == ("", STEPS - 1 - EAGER)
    for (found, _), picture in zip(some[-2:], pictures, strict=True):
        latent = replayed.latent(found.moving_ws)
        torch.testing.assert_close(picture, model.pictures(latent), rtol=1e-6, atol=1e-8)
