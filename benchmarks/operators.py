"""Operators and host synchronisations of one step, ours beside the plain loop; no GPU needed.

    scripts/bench operators [--side 16]

On a GPU a small network's time is that of its kernel launches, so the number of operators that are
dispatched is the measure of a step that needs no GPU. Views are not counted: they launch nothing.
A synchronisation is a place where the host needs a number that a GPU would still be computing
(`item()`, a truth value, `nonzero`, a boolean index, `tolist()`, `cpu()`).

The U-Net has Stable Diffusion 1.5's layout with few channels: the counts do not depend on widths.

A second table says where the host waits for a GPU, copies included: see `benchmarks.waits`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import training
from benchmarks.drag_speed import Task, begun
from benchmarks.plain import Plain, plain_null_text, plain_swap
from benchmarks.plain_drag import plain_steps
from benchmarks.rows import RESULTS, page
from benchmarks.swap_speed import SOURCE, TARGET, WORDS, Bench
from benchmarks.waits import every_loop
from understudy.invert.source import SourceFeatures
from understudy.swap.photoswap import schedule_of, swap_steps
from understudy.transfer.loop import alignment
from understudy.transfer.source_target import Source, Target

aten = torch.ops.aten
SYNCS = {
    aten._local_scalar_dense.default,
    aten.is_nonzero.default,
    aten.equal.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
}
FREE = {aten.detach.default, aten.lift_fresh.default, aten._to_copy.default}
TO_HOST = ("tolist", "cpu", "numpy")


@dataclass
class Counted(TorchDispatchMode):
    """Counts what is dispatched inside: kernels (operators that are not views) and syncs.

    uploads: tensors made from Python numbers; each is a copy to the device.
    """

    kernels: Counter[str] = field(default_factory=Counter)
    syncs: Counter[str] = field(default_factory=Counter)
    uploads: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in SYNCS or _boolean_index(func, args):
            self.syncs[_name(func)] += 1
        if func is aten.lift_fresh.default:
            self.uploads += 1
        elif not func.is_view and func not in FREE:
            self.kernels[_name(func)] += 1
        return func(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        return self.kernels.total()

    def __str__(self) -> str:
        return f"{self.total} kernels, {self.syncs.total()} syncs, {self.uploads} uploads"


def _name(func: Any) -> str:
    return func.overloadpacket.__name__


def _boolean_index(func: Any, args: tuple[Any, ...]) -> bool:
    if func not in (aten.index.Tensor, aten.index_put_.default):
        return False
    return any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])


@contextmanager
def counted() -> Iterator[Counted]:
    """Count everything inside, backward passes included."""
    count = Counted()

    def noted(name: str) -> Callable[..., Any]:
        real = getattr(Tensor, name)

        def call(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            count.syncs[name] += 1
            return real(tensor, *args, **kwargs)

        return call

    patches = [patch.object(Tensor, name, noted(name)) for name in TO_HOST]
    for one in patches:
        one.start()
    try:
        with count:
            yield count
    finally:
        for one in patches:
            one.stop()


@dataclass(frozen=True)
class Compared:
    """One step of ours and of the plain loop."""

    what: str
    ours: int
    plain: int
    syncs: int
    plain_syncs: int

    @property
    def share(self) -> float:
        return self.ours / self.plain


def swaps(side: int = 16, steps: int = 4) -> Iterator[Compared]:
    """A first and a later swap, the mean of the steps; preset "paper"."""
    bench = Bench(side, steps, 1, "small", "cpu")
    settings, kept = bench.settings("paper"), SourceFeatures(room=10**12)
    model = bench.model()
    inversion = bench.inverted(model, settings, None)
    mixing = alignment(model, SOURCE, TARGET)
    plan = Plain(schedule_of(settings), mixing, 1024, stores_all=True)
    nulls = [model.embed([""])] * steps
    with counted() as plain:
        plain_swap(
            bench.model(), inversion.noise, nulls, (SOURCE, TARGET), plan,
            guidance=bench.guidance, times=inversion.times,
        )  # fmt: skip
    for which in ("first", "later"):
        walk = swap_steps(model, Source(inversion, kept), Target(TARGET, WORDS), settings)
        with counted() as beginning:
            next(walk)
        with counted() as rest:
            for _ in walk:
                pass
        ours = round((beginning.total + rest.total) / steps)
        yield Compared(
            f"swap, {which}: a step",
            ours,
            round(plain.total / steps),
            rest.syncs.total(),  # in the loop: the first step reads what the whole swap needs
            plain.syncs.total(),
        )


def null_text(side: int = 16, steps: int = 4, inner: int = 3) -> Compared:
    """A timestep of null-text inversion with `inner` optimiser steps, inversion included."""
    bench = Bench(side, steps, inner, "small", "cpu")
    settings = bench.settings("paper")
    with counted() as ours:
        bench.inverted(bench.model(), settings, None)
    with counted() as plain:
        plain_null_text(
            bench.model(), bench.photo(), SOURCE, steps=steps, guidance=7.5, inner_steps=inner
        )
    return _compared(f"null-text, {inner} inner steps: a timestep", ours, plain, steps)


def drag(case: str = "3 points", size: int = 128, *, whole: bool = True) -> Compared:
    """A step of a drag after the first. whole: the whole map is computed, as on a GPU; else
    windows around the points, as on a CPU."""
    task = Task(case, size, 2, "cpu")
    engine, state = begun(task)
    engine = replace(engine, whole=whole)
    _, state = engine.step(state)
    with counted() as ours:
        engine.step(state)
    model = task.model()
    ws = model.latents(model.draw_z(1), truncation=0.7)
    steps = plain_steps(model, ws, *task.points(), steps=2, movable=task.movable(), resolution=128)
    next(steps)
    with counted() as plain:
        next(steps)
    how = "as on a GPU" if whole else "as on a CPU"
    return _compared(f"drag, {case}, {how}: a step", ours, plain, 1)


def drag_reads(case: str, size: int = 64) -> int:
    """How often a step of a drag copies from the device: the host's other numbers are its own."""
    engine, state = begun(Task(case, size, 2, "cpu", resolution=size))
    _, state = engine.step(state)
    with counted() as count:
        engine.step(state)
    return count.syncs["cpu"]


def learning(method: str) -> Compared:
    """A training step after the first two; see `benchmarks.training`."""
    task, counts = training.Task(method), list[Counted]()
    for side in (training.our_step, training.plain_step):
        with side(task, task.model()) as step:
            step()
            step()
            with counted() as count:
                step()
        counts.append(count)
    return _compared(f"learn, {method}: a step", *counts, 1)


def _compared(what: str, ours: Counted, plain: Counted, steps: int) -> Compared:
    counts = (ours.total, plain.total, ours.syncs.total(), plain.syncs.total())
    return Compared(what, *(round(count / steps) for count in counts))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", type=int, default=16, help="of the latents")
    wish = parser.parse_args()
    rows = [*swaps(wish.side), null_text(wish.side, inner=3), null_text(wish.side, inner=10)]
    rows += [
        drag(case, whole=whole)
        for whole in (True, False)
        for case in ("1 point", "3 points", "2 points, mask")
    ]
    rows += [learning(method) for method in training.METHODS]
    heads = ("", "kernels, ours", "plain", "share", "syncs, ours", "plain")
    cells = (
        [r.what, str(r.ours), str(r.plain), f"{r.share:.2f}", str(r.syncs), str(r.plain_syncs)]
        for r in rows
    )
    intro = ["# Kernels and host synchronisations of a step, ours and the plain loop's", ""]
    intro += ["Syncs: on a CPU, numbers of the host's own included; waits.md has those of a GPU."]
    print(page(RESULTS / "operators.json", [asdict(row) for row in rows], intro, heads, cells))
    print(waited())


def waited() -> str:
    """The table of `benchmarks.waits`, written beside the other."""
    found = list(every_loop())
    heads = ("", "waits", "numbers read by an event", "copies sent without waiting")
    cells = ([w.what, f"{w.total:g}", f"{w.read:g}", f"{w.sent:g}"] for w in found)
    intro = ["# Where the host waits for a GPU in a step of ours, on a stand-in for one", ""]
    rows = [asdict(one) for one in found]
    return page(RESULTS / "waits.json", rows, intro, heads, cells)


if __name__ == "__main__":
    main()
