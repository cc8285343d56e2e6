"""Where the host waits for the device in a step of every loop, seen on a stand-in for a GPU.

Steps after the first: the first may make what the others keep. See `stand_in_gpu`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from benchmarks import training
from benchmarks.drag_speed import Task as DragTask
from benchmarks.drag_speed import begun
from benchmarks.shapes import Shaped
from benchmarks.stand_in_gpu import GPU, moved, stand_in, watched
from benchmarks.swap_speed import SOURCE, TARGET, WORDS, Bench
from understudy.cuda_graphs.proof import LEAST
from understudy.diffusion.sampler import sample_steps
from understudy.drag.engine import Engine
from understudy.drag.recorded import EAGER
from understudy.drag.state import State
from understudy.edit import edit_steps, flow_edit_steps
from understudy.invert.inversion import Inversion
from understudy.invert.invert import method_steps
from understudy.invert.null_text import null_text_steps
from understudy.invert.source import SourceFeatures
from understudy.settings import EditSettings, InvertSettings, SwapSettings
from understudy.swap.photoswap import swap_steps
from understudy.swap.sweep import Axis, cells, sweep_steps
from understudy.transfer.source_target import Source, Target

STEPS, SIDE = 4, 16


@dataclass(frozen=True)
class Waited:
    """Of one step: waits for all that was launched, by what the host did; numbers read by events,
    and copies to the device, that it did not wait for."""

    what: str
    waits: dict[str, float]
    read: float
    sent: float

    @property
    def total(self) -> float:
        return sum(self.waits.values())


def steady(what: str, walk: Iterable[Any], first: int = 1) -> Waited:
    """The mean of the steps after the first ones."""
    steps = iter(walk)
    for _ in range(first):
        next(steps)
    with watched() as waits:
        taken = sum(1 for _ in steps)
    each = {name: count / taken for name, count in waits.host.items()}
    return Waited(what, each, waits.read / taken, waits.sent / taken)


def on_stand_in() -> Any:
    """A U-Net of Stable Diffusion 1.5's layout on the stand-in."""
    model: Any = Shaped("small", "cpu")
    moved(model.unet)
    model.device = GPU
    return model


def loops() -> Iterator[Waited]:
    """Sampling, null-text inversion, swaps and edits."""
    with stand_in():
        model = on_stand_in()
        bench = Bench(SIDE, STEPS, 3, "small", "cpu")
        photo, settings = bench.photo().to("cuda"), bench.settings("paper")
        text, empty = model.embed([SOURCE]), model.embed([""])
        yield steady("sampling", sample_steps(model, photo, text, empty, steps=STEPS, guidance=5.0))
        # The loss is never below 0: every inner step is taken.
        how = InvertSettings(
            method="null-text", steps=STEPS, inner_steps=3, guidance=7.5, epsilon=0.0
        )
        found = list[Inversion]()

        def inverting() -> Iterator[Any]:
            for step in null_text_steps(model, photo, SOURCE, how):
                found.extend([step.inversion] if step.inversion else [])
                yield step

        yield steady("null-text: a timestep", inverting(), first=STEPS + 1)
        source, target = Source(found[0], SourceFeatures(room=10**12)), Target(TARGET, WORDS)
        for which in ("first", "later"):
            yield steady(f"swap, {which}", swap_steps(model, source, target, settings))
        kept = replace(settings, blend=True, where="attention")
        yield steady("swap, blended", swap_steps(model, source, target, kept))
        grid = cells(settings, None, Axis("self_output_steps", (0, 2, 4)))
        yield steady("sweep of 3", sweep_steps(model, source, target, grid))
        for method in ("p2p", "pnp"):
            edit = EditSettings.filled({"method": method, "steps": STEPS, "guidance": 7.5})
            yield steady(f"edit, {method}", edit_steps(model, found[0], TARGET, edit))


def flow_loops() -> Iterator[Waited]:
    """Sampling, a swap and edits of a flow model, whose layers read text and image jointly."""
    model = training.tiny_flow("sd35")
    with stand_in():
        moved(*model.networks.values())
        model._device = GPU  # pyright: ignore[reportPrivateUsage]
        photo = torch.randn(1, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).to("cuda")
        text, empty = model.embed([SOURCE]), model.embed([""])
        steps = sample_steps(model, photo, text, empty, steps=STEPS, guidance=5.0)
        yield steady("flow: sampling", steps)
        direct = InvertSettings.filled({"method": "direct", "steps": STEPS})
        *_, last = method_steps(model, photo, SOURCE, direct)
        found = last.inversion
        assert found is not None
        given = {"steps": STEPS, "guidance": found.guidance}
        swap = SwapSettings.filled({**given, "preset": "paper"})
        yield steady("flow: swap", swap_steps(model, found, Target(TARGET, WORDS), swap))
        p2p = EditSettings.filled({**given, "method": "p2p"})
        yield steady("flow: edit, p2p", edit_steps(model, found, TARGET, p2p))
        flowedit = EditSettings.filled({"method": "flowedit", "steps": STEPS}, model.name)
        edit = flow_edit_steps(model, photo, SOURCE, TARGET, flowedit)
        yield steady("flow: edit, flowedit", edit)


def drags() -> Iterator[Waited]:
    """A step of a drag."""
    for case in ("1 point", "20 points", "2 points, mask"):
        task = DragTask(case, 64, 4, "cpu", resolution=64)
        model = task.model()
        with stand_in():
            moved(model)
            engine, state = begun(task, model)
            # The first steps make an anchor, run as they are, and are compared with replays.
            first = 1 + EAGER + LEAST
            yield steady(f"drag, {case}", dragged(engine, state, first + 2), first=first)


def dragged(engine: Engine, state: State, steps: int) -> Iterator[Any]:
    for _ in range(steps):
        found, state = engine.step(state)
        yield found


def learning() -> Iterator[Waited]:
    """A training step of every method; of one with Min-SNR and an average of the weights."""
    yield trained("DreamBooth", ", Min-SNR and EMA", snr_gamma=5.0, average=0.99)
    for method in training.METHODS:
        yield trained(method)


def trained(method: str, how: str = "", **options: Any) -> Waited:
    task = training.Task(method)
    model = task.model()
    with stand_in():
        moved(*task.networks(model))
        if task.flow:
            model._device = GPU
        with training.our_step(task, model, **options) as step:
            return steady(f"learn, {method}{how}", repeated(step, 3))


def repeated(step: Callable[[], Any], times: int) -> Iterator[Any]:
    for _ in range(times):
        yield step()


def every_loop() -> Iterator[Waited]:
    torch.manual_seed(0)
    yield from loops()
    yield from flow_loops()
    yield from learning()
    yield from drags()


if __name__ == "__main__":
    print(json.dumps([asdict(one) | {"total": one.total} for one in every_loop()]))
