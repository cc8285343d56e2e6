"""A CUDA graph that does wrong is noticed, and the result is that of the calls themselves.

The stand-in that records misbehaves on purpose (`recorder.Faulty`): in evaluations, in null-text's
inner step, in training steps and in drags. Then every part of the check by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from apart import printed
from cases import few
from recorder import Faulty, Recorder
from test_drag_recorded import alike, begun, engine_of, recorded, recordings, walk
from test_graphs import (
    SOURCE,
    TARGET,
    Records,
    generated,
    graphed,
    inverted,
    learnt,
    noise,
    predicted,
)
from tiny import tiny_model
from understudy.cuda_graphs.agreement import difference, tolerance
from understudy.cuda_graphs.capture import SWITCH, CUDACapture
from understudy.cuda_graphs.proof import LEAST, Proof
from understudy.cuda_graphs.replays import Call, Replays
from understudy.models.graphs import Graphs
from understudy.settings import SwapSettings

CPU = torch.device("cpu")


def maps(model: Any) -> list[Tensor]:
    """Evaluations, each with the attention maps of its layers."""
    control, text = Records(), model.embed([SOURCE, TARGET])
    with torch.no_grad():
        made = [model.predict(noise(model, 2) * n, 500, text, control) for n in range(1, 7)]
    return [*made, *control.maps]


def null_text(model: Any) -> list[Tensor]:
    how = SwapSettings.filled({"preset": "paper", "steps": 6, "guidance": 5.0})
    inversion = inverted(model, how, None)
    assert inversion.replay is not None and inversion.null_embeddings is not None
    return [inversion.replay, inversion.null_embeddings.tokens]


LEARN = partial(learnt, half="float32", method="dreambooth")
Run = Callable[[Any], list[Tensor]]
# Where it begins: at the first replay, at the second, and in one that is not compared any more.
FAULTS = [
    *((run, fault, first, None) for run in (generated, maps) for fault, first in
      (("stale", 0), ("wrong", 0), ("wrong", 1), ("nan", 1), ("raises", 0), ("raises", 1),
       ("raises", 3))),
    (maps, "aliased", 0, None), (maps, "aliased", 1, None),
    # 0 is the graph of the forward pass, 1 that of the backward pass.
    *((LEARN, fault, first, which) for which in (0, 1) for fault, first in
      (("stale", 0), ("wrong", 0), ("wrong", 1), ("nan", 1), ("raises", 0), ("raises", 1),
       ("raises", 2))),
    (LEARN, "aliased", 0, 1), (LEARN, "aliased", 1, 1),
]  # fmt: skip


QUICK = [
    *((generated, fault, first, None) for fault, first in
      (("stale", 0), ("wrong", 0), ("wrong", 1), ("nan", 1), ("raises", 0), ("raises", 3))),
    (maps, "wrong", 1, None), (maps, "raises", 1, None), (maps, "aliased", 0, None),
    *((LEARN, fault, first, 0) for fault, first in (("stale", 0), ("wrong", 1), ("raises", 0))),
    *((LEARN, fault, first, 1) for fault, first in
      (("wrong", 0), ("nan", 1), ("raises", 2), ("aliased", 1))),
]  # fmt: skip


def noticed(run: Run, capturer: Faulty) -> Graphs:
    """Bit for bit what the calls give, and the graphs are off."""
    model = tiny_model()
    right = run(model)
    graphs = model.graph(capturer=capturer)
    assert graphs is not None
    made = run(model)
    # The first call that a stale one computes is the one that it was recorded from.
    assert capturer.faults == 1 or (capturer.fault, capturer.faults) == ("stale", 2)
    assert len(graphs) == 0
    assert graphs.failure and "\n" not in graphs.failure
    if capturer.fault == "raises":
        assert graphs.failure == "CUDA error: unspecified launch failure"
    else:
        assert graphs.failure.startswith("a replayed CUDA graph gave")
    assert len(made) == len(right)
    assert all(torch.equal(a, b) for a, b in zip(made, right, strict=True))
    return graphs


@pytest.mark.parametrize("run, fault, first, which", few(FAULTS, QUICK))
def test_a_faulty_graph_is_noticed(run: Run, fault: str, first: int, which: int | None) -> None:
    graphs = noticed(run, Faulty(fault, first, which))
    assert graphs.compared <= LEAST


GRAPHS = ("inversion", "forward", "backward")
IN_NULL_TEXT = [
    (graph, fault, first) for graph in GRAPHS for fault, first in
    (("stale", 0), ("wrong", 1), ("raises", 1), ("raises", 3))
]  # fmt: skip


@pytest.mark.parametrize(
    "graph, fault, first",
    few(IN_NULL_TEXT, [("inversion", "stale", 0), ("forward", "wrong", 1),
                       ("backward", "wrong", 1), ("backward", "raises", 3)]),
)  # fmt: skip
def test_null_text_notices(graph: str, fault: str, first: int) -> None:
    """Of the inversion, of an inner step's forward pass, of its backward pass."""
    noticed(null_text, Faulty(fault, first, GRAPHS.index(graph)))


@pytest.mark.parametrize(
    "fault, first",
    [("stale", 0), ("aliased", 0), ("wrong", 0), ("wrong", 1), ("nan", 1), ("raises", 0),
     ("raises", 3)],
)  # fmt: skip
def test_a_drag_notices(fault: str, first: int) -> None:
    plain, capturer = engine_of("stylegan2", masked=True), Faulty(fault, first)
    engine = recorded(plain, capturer)
    made = walk(engine, begun(engine, 3), 9)
    right = walk(plain, begun(plain, 3), 9)
    alike(made, right)
    assert capturer.faults == (2 if fault == "stale" else 1) and len(recordings(engine)) == 0
    wanted = "CUDA error: unspec" if fault == "raises" else "a replayed CUDA graph gave"
    assert recordings(engine).failure.startswith(wanted)


def test_right_graphs_are_compared_twice_and_then_trusted() -> None:
    model, engine = tiny_model(), recorded(engine_of("stylegan2"), Recorder())
    graphs = graphed(model)
    LEARN(model)
    assert (graphs.failure, graphs.compared, graphs.replays) == ("", LEAST, 4)
    walk(engine, begun(engine, 3), 9)
    made = recordings(engine)
    assert (made.failure, made.compared, made.replays) == ("", LEAST, 6)


def test_a_text_that_changes_later_is_compared_again() -> None:
    """A graph that reads a stale text, but new latents, is right until the text changes."""
    model = tiny_model()
    texts = [model.embed([prompt]) for prompt in (SOURCE, TARGET)]
    stale = Stale()
    graphs = model.graph(capturer=stale)
    assert graphs is not None
    denoiser, run = model.denoiser, model.denoiser._run  # pyright: ignore[reportPrivateUsage]

    def running(given: Any, call: Any, control: Any) -> Tensor:
        if stale.on:
            first = stale.held.setdefault("tokens", given[2].clone())
            given = (*given[:2], first, given[3])
        return run(given, call, control)

    denoiser._run = running  # pyright: ignore
    with torch.no_grad():
        for n in range(5):
            model.predict(noise(model) * n, 500, texts[0])
        assert (graphs.failure, graphs.compared) == ("", LEAST)
        made = model.predict(noise(model), 500, texts[1])
        assert graphs.failure.startswith("a replayed CUDA graph gave a difference")
        model.graph(False)
        assert torch.equal(made, model.predict(noise(model), 500, texts[1]))


class Stale(Recorder):
    """on: while it records or replays. held: what the first call of these read."""

    def __init__(self) -> None:
        super().__init__()
        self.on, self.held = False, dict[str, Tensor]()

    def captured(self, run: Callable[[], Any], device: torch.device) -> Any:
        def once() -> Any:
            self.on = True
            try:
                return run()
            finally:
                self.on = False

        return super().captured(once, device)


# The parts of the check


def calls(run: Callable[[Tensor], Any], capturer: Recorder | None = None) -> Any:
    """A function of one tensor that is replayed from its second call on."""
    replays = Replays(capturer or Recorder(), 4, 1)

    def call(x: Tensor) -> Any:
        return replays.result(Call("a kind", run, x, [x], CPU))

    return call, replays


def test_random_numbers_and_frozen_values_are_noticed() -> None:
    step = [1.0]
    drawing, drawn = calls(lambda x: x + torch.rand(3))
    frozen, kept = calls(lambda x: x * step[0], Faulty("stale"))
    for n in range(1, 5):
        step[0] = n
        drawing(torch.ones(3))
        assert torch.equal(frozen(torch.ones(3)), torch.full((3,), float(n)))
    assert drawn.failure and kept.failure and len(drawn) == len(kept) == 0


def test_nan_that_the_call_gives_is_right() -> None:
    call, replays = calls(lambda x: torch.cat([x, x.log()]))
    for n in range(5):
        call(torch.tensor([-1.0, 0.0, n]))
    assert replays.failure == "" and replays.replays == 4


def test_a_result_that_changes_later_is_noticed() -> None:
    proof, made = Proof(), torch.ones(3)
    assert proof.is_due([torch.zeros(1)]) and proof.fault([made], [made.clone()], 0) == ""
    proof.agreed([made])
    made[1] = 2
    now = torch.ones(3)
    assert "changed what it had given" in proof.fault([now], [now], 0)


def test_an_error_of_the_call_itself_is_raised() -> None:
    limit = [9.0]

    def run(x: Tensor) -> Tensor:
        if limit[0] < 9:
            raise RuntimeError("the call's own error")
        return x * 2

    call, replays = calls(run)
    for _ in range(2):
        call(torch.ones(1))
    limit[0] = 1.0
    with pytest.raises(RuntimeError, match="own error"):
        call(torch.ones(1))
    assert replays.failure == "the call's own error"


@pytest.mark.parametrize(
    "dtype, allowed",
    [(torch.float64, 1e-9), (torch.float32, 1e-3), (torch.float16, 2e-2), (torch.bfloat16, 2e-2)],
)
def test_differences_are_shares_of_the_largest_value(dtype: torch.dtype, allowed: float) -> None:
    right = torch.tensor([0.0, 1.0, -8.0], dtype=torch.float64)
    for share, agrees in ((0.5, True), (2.0, False)):
        made = right + torch.tensor([8 * allowed * share, 0, 0])
        found = difference([made], [right], tolerance([dtype, None, torch.int64]))
        assert (found == "") is agrees
    assert tolerance([torch.float64, dtype]) == allowed


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_must_be_the_same(odd: float) -> None:
    plain, other = torch.tensor([1.0, 2.0]), torch.tensor([odd, 2.0])
    assert difference([other], [other.clone()], 0) == ""
    assert difference([plain], [other], 1) and difference([other], [plain], 1)
    assert difference([-other if math.isinf(odd) else other.flip(0)], [other], 1)


def test_small_tensors_are_judged_beside_large_ones() -> None:
    large, noise = torch.tensor([1.0]), torch.tensor([1e-9])
    assert difference([large, 2 * noise], [large, noise], 1e-3) == ""
    assert difference([2 * noise], [noise], 1e-3)
    assert difference([large, torch.tensor([2e-3])], [large, torch.tensor([1e-3])], 1e-3)
    assert difference([torch.tensor([1e-9])], [torch.zeros(1)], 1e-3)
    assert difference([torch.tensor([1])], [torch.tensor([2])], 1)
    assert difference([large.double()], [large], 1) and difference([large[:0]], [large], 1)


def test_the_environment_turns_them_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(device: torch.device) -> str:
        return "default"

    monkeypatch.setattr(torch.cuda, "current_stream", stream)
    monkeypatch.setattr(torch.cuda, "default_stream", stream)
    assert CUDACapture().runs_on(torch.device("cuda")) and not CUDACapture().runs_on(CPU)
    monkeypatch.setenv(SWITCH, "0")
    assert not CUDACapture().runs_on(torch.device("cuda"))


@contextmanager
def other_kernels() -> Iterator[None]:
    """Inside the block cuDNN chooses its kernels otherwise, whatever the machine's default is."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = not before
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def test_another_choice_of_kernels_is_another_graph() -> None:
    engine, model = recorded(engine_of("stylegan2"), Recorder()), tiny_model()
    *_, (_, state) = walk(engine, begun(engine, 1), 5)
    assert len(recordings(engine)) == 1
    with other_kernels():
        walk(engine, state, 4)
    assert len(recordings(engine)) == 2
    graphs = graphed(model)
    with torch.no_grad():
        for _ in range(2):
            predicted(model)
            with other_kernels():
                predicted(model)
    assert len(graphs) == 2


@pytest.mark.slow  # a minute; test_operators.py holds the same loops to be free of waits
def test_every_loop_over_a_unet_can_be_recorded() -> None:
    """On a stand-in that refuses what a GPU refuses to record; replays agree, and are used."""
    before = 0
    for row in printed("graphs_on_stand_in.py"):
        assert row["failure"] == "" and row["graphs"] > 0
        before = 0 if row["what"].startswith("learn") else before
        assert row["replays"] > before, row
        before = row["replays"]
