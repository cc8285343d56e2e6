"""Null-text inversion and Photoswap, ours against the plain way: rows, work, time, memory.

    python -m benchmarks.swap_speed work [--side 64]      counted, on no device: rows and MACs
    python -m benchmarks.swap_speed time [--side 32] [--steps 4] [--shape half]    in one run

Stable Diffusion 1.5's U-Net with random weights. `work` runs every operation of 50 steps on the
meta device: shapes without numbers, so full size takes minutes on a laptop; multiply-adds are what
PyTorch's own counter says, in units of one row. Of null-text inversion one inner step is counted
and multiplied. `time` runs both ways on one device and weighs live memory as it goes; on a CPU it
is the processor's time, so that other work on the machine does not count, and the channels are
halved, so that one core has done in minutes.
"""

from __future__ import annotations

import argparse
import json
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain import Plain, be_plain, plain_null_text, plain_swap
from benchmarks.rows import RESULTS
from benchmarks.shapes import SHAPES, Shaped
from understudy.invert.inversion import Inversion
from understudy.invert.keeping import keeping
from understudy.invert.null_text import null_text_steps
from understudy.invert.source import GIGABYTE, SourceFeatures, best_grid
from understudy.invert.source import WORDS as WORD_MAPS
from understudy.settings import InvertSettings, SwapSettings
from understudy.swap.blending import blend_of
from understudy.swap.photoswap import parts_read, schedule_of, swap_steps
from understudy.swap.sweep import Axis, cells, sweep_steps
from understudy.transfer.loop import alignment
from understudy.transfer.source_target import Replacement, Source, Target

SOURCE, TARGET = "a photo of a cat on the beach", "a photo of a sks cat on the beach"
WORDS = (Replacement("cat", "sks cat"),)
FIGURES = {"work": 1, "seconds": 1, "peak": 3}  # of a cost, and their decimals


class Live(TorchDispatchMode):
    """Bytes of tensors alive that were made inside: now, and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = {id(t.untyped_storage()) for t in _tensors((args, kwargs or {}))}
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            key = id(storage)
            if key not in self.known and key not in inputs:
                self.known.add(key)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._gone, key, storage.nbytes())
        return out

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        for value in values.values():
            yield from _tensors(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)


@dataclass
class Cost:
    """What a piece of work took."""

    rows: int = 0
    work: float = 0.0  # in rows' worth of multiply-adds; only from `work`
    seconds: float = 0.0
    peak: float = 0.0  # GB of tensors alive beside the weights; only from `time`


@dataclass
class Bench:
    """Both ways on models of their own, at one size."""

    side: int
    steps: int
    inner: int
    shape: str = "sd15"
    device: str = "meta"
    offset: int = 0
    guidance: float = 7.5
    costs: dict[str, Cost] = field(default_factory=dict)
    row: float = 0.0

    def model(self) -> Shaped:
        return Shaped(self.shape, self.device, offset=self.offset)

    def photo(self) -> Tensor:
        drawn = torch.randn(1, 4, self.side, self.side, generator=torch.Generator().manual_seed(1))
        return (0.5 * drawn).to(self.device)

    @property
    def blend_cells(self) -> int:
        """Cells of the maps that a blend reads, as ours chooses them; the middle block has none."""
        height, width = best_grid([(self.side // k, self.side // k) for k in (1, 2, 4)])
        return height * width

    def settings(self, preset: str) -> SwapSettings:
        given = {"preset": preset, "steps": self.steps, "guidance": self.guidance}
        return SwapSettings.filled(given)

    @contextmanager
    def measured(self, name: str, model: Shaped) -> Iterator[None]:
        """Note what happens inside under `name`."""
        clock = time.process_time if self.device == "cpu" else time.perf_counter
        before, started = model.nfe, clock()
        if self.device == "meta":
            with FlopCounterMode(display=False) as counted:
                yield
            self.costs[name] = Cost(model.nfe - before, counted.get_total_flops() / self._row())
            return
        cuda = self.device.startswith("cuda")
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated()
            yield
            torch.cuda.synchronize()
            peak = torch.cuda.max_memory_allocated() - held
        else:
            with Live() as live:
                yield
            peak = live.most
        seconds = clock() - started
        self.costs[name] = Cost(model.nfe - before, 0.0, seconds, peak / 1e9)

    def _row(self) -> float:
        """Operations of one row."""
        if not self.row:
            model = self.model()
            with FlopCounterMode(display=False) as counted, torch.no_grad():
                model.predict(self.photo(), 500, model.embed([SOURCE]))
            self.row = float(counted.get_total_flops())
        return self.row

    # Work, counted without numbers

    def work(self, preset: str) -> None:
        """A swap whose source is run, and one that finds its features; each against 4 rows a step.

        The first is that of a known path and first noise, as null-text inversion leaves them; had
        the inversion kept the features, the first swap would be the last here. With a blend there
        is one between them: of an inversion that kept where the words are.
        """
        model, settings, features = self.model(), self.settings(preset), SourceFeatures(room=10**15)
        inversion = self.pretended(model)
        words = self.words_of(model, inversion) if settings.blend else None
        kept = {"source run": features, "source kept": features}
        kept = {"source run": None, "words kept": words, "source kept": words} if words else kept
        for which, features in kept.items():
            with self.measured(f"{preset}: swap, {which}", model):
                self.swapped(model, inversion, settings, features)
        assert features is not None
        self.costs[f"{preset}: features kept"] = Cost(peak=features.nbytes / 1e9)
        rows = 4 * self.steps
        self.costs[f"{preset}: swap, the plain way"] = Cost(rows, float(rows))

    def words_of(self, model: Shaped, inversion: Inversion) -> SourceFeatures:
        """Features of an inversion that kept its words, in conditional rows that it runs anyway."""
        features, text = SourceFeatures(room=10**15), model.embed([SOURCE])
        features.claim(inversion, self.guidance)
        for index, at in enumerate(inversion.times[:-1]):
            control = keeping(features, index, WORD_MAPS, cond=0)
            with torch.no_grad():
                model.predict(self.photo(), at, text, control)
            features.close_step(index, WORD_MAPS)
        return features

    def pretended(self, model: Shaped) -> Inversion:
        """A null-text inversion's shapes."""
        path = self.photo().expand(self.steps + 1, -1, -1, -1)
        times = model.schedule.times(self.steps)
        return Inversion(
            "null-text", SOURCE, model.name, model.fingerprint, self.guidance, times, "",
            path, path, model.embed([""]).expand(self.steps), self.photo(),
        )  # fmt: skip

    def null_text_work(self) -> None:
        """DDIM, then for each step that moves anything: its conditional row, the inner steps with
        their gradients, its last row. The plain way runs the conditional row twice, every step,
        and asks for the gradients of weights."""
        moving = self.steps - (self.offset == 0)
        for plain in (False, True):
            model = self.model()
            if plain:
                be_plain(model.unet, None)
                model.unet.requires_grad_(True)
            null = model.embed([""])
            null.tokens.requires_grad_()
            with FlopCounterMode(display=False) as counted:
                model.predict(self.photo(), 500, null).sum().backward()
            inner = self.inner * counted.get_total_flops() / self._row()
            steps, others = (self.steps, 4) if plain else (moving, 3)
            name = f"null-text, {'the plain way' if plain else 'ours'}"
            self.costs[name] = Cost(steps * (others + self.inner), steps * (others + inner))

    def sweep_work(self) -> None:
        """25 cells, as they share what they can; the plain way is 25 swaps."""
        model, settings = self.model(), self.settings("paper")
        shares = (0.1, 0.2, 0.3, 0.4, 0.5)
        grid = cells(settings, Axis("self_output_steps", shares), Axis("cross_map_steps", shares))
        with self.measured("sweep of 25", model):
            *_, _ = sweep_steps(model, self.pretended(model), Target(TARGET, WORDS), grid)
        self.costs["sweep of 25, the plain way"] = Cost(100 * self.steps, 100.0 * self.steps)

    # Ours

    def ours(self, preset: str) -> None:
        """Inversion that keeps the source's features, the first swap, and a later one."""
        model, settings = self.model(), self.settings(preset)
        features = SourceFeatures(room=64 * GIGABYTE)
        with self.measured(f"ours, {preset}: null-text", model):
            inversion = self.inverted(model, settings, features)
        for which in ("first swap", "later swap"):
            with self.measured(f"ours, {preset}: {which}", model):
                self.swapped(model, inversion, settings, features)
        self.costs[f"ours, {preset}: features kept"] = Cost(peak=features.nbytes / 1e9)
        with self.measured(f"ours, {preset}: swap of an inversion without features", model):
            self.swapped(model, inversion, settings, None)

    def inverted(
        self, model: Shaped, settings: SwapSettings, features: SourceFeatures | None
    ) -> Inversion:
        *_, last = null_text_steps(
            model, self.photo(), SOURCE,
            InvertSettings(
                steps=self.steps, guidance=self.guidance, inner_steps=self.inner, epsilon=0.0
            ),
            features=features, parts=lambda index: parts_read(settings, index),
        )  # fmt: skip
        assert last.inversion is not None
        return last.inversion

    def swapped(
        self,
        model: Shaped,
        inversion: Inversion,
        settings: SwapSettings,
        features: SourceFeatures | None,
    ) -> Tensor:
        steps = swap_steps(model, Source(inversion, features), Target(TARGET, WORDS), settings)
        *_, last = steps
        return last.target

    # The plain way

    def plain(self, preset: str) -> None:
        """The same work as published: everything computed, everything materialised."""
        model, settings = self.model(), self.settings(preset)
        with self.measured(f"plain, {preset}: null-text", model):
            noise, nulls = plain_null_text(
                model, self.photo(), SOURCE,
                steps=self.steps, guidance=self.guidance, inner_steps=self.inner,
            )  # fmt: skip
        inversion = Inversion(
            "seed", SOURCE, model.name, model.fingerprint, self.guidance, (), "", noise
        )
        blend = blend_of(model, Source(inversion), (Target(TARGET, WORDS),), settings)
        spots = None
        if blend is not None:
            spots = (blend.start, self.blend_cells, blend.source_places, blend.target_places[0])
        plan = Plain(schedule_of(settings), alignment(model, SOURCE, TARGET), 1024, stores_all=True)
        with self.measured(f"plain, {preset}: swap", model):
            plain_swap(
                model, noise, nulls, (SOURCE, TARGET), plan, guidance=self.guidance,
                times=model.schedule.times(self.steps), blend=spots,
            )  # fmt: skip


def ratios(costs: dict[str, Cost], preset: str, of: Callable[[Cost], float]) -> dict[str, float]:
    """How many times as much the plain way takes, for the whole job and for a later swap."""
    plain = [of(costs[f"plain, {preset}: {part}"]) for part in ("null-text", "swap")]
    ours = [of(costs[f"ours, {preset}: {part}"]) for part in ("null-text", "first swap")]
    later = of(costs[f"ours, {preset}: later swap"])
    return {"later swap": plain[1] / later, "sum": sum(plain) / sum(ours),
            "highest": max(plain) / max(ours)}  # fmt: skip


def _seconds(cost: Cost) -> float:
    return cost.seconds


def _peak(cost: Cost) -> float:
    return cost.peak


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("work", "time"))
    parser.add_argument("--side", type=int, help="of the latents: 64 is a picture of 512")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--inner", type=int, help="null-text's inner steps")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", choices=SHAPES, help="sd15; time on a CPU: half its channels")
    parser.add_argument("--offset", type=int, default=0, help="steps_offset of the schedule")
    parser.add_argument("--presets", nargs="+", help="paper official; time: paper")
    wish = parser.parse_args()
    counts = wish.what == "work"
    bench = Bench(
        wish.side or (64 if counts else 32),
        wish.steps or (50 if counts else 4),
        wish.inner if wish.inner is not None else (10 if counts else 2),
        wish.shape or ("half" if not counts and wish.device == "cpu" else "sd15"),
        "meta" if counts else wish.device,
        wish.offset,
    )
    presets = wish.presets or (["paper", "official"] if counts else ["paper"])
    torch.set_num_threads(1)
    for preset in presets:
        if counts:
            bench.work(preset)
        else:
            bench.ours(preset)
            bench.plain(preset)
    if counts:
        bench.null_text_work()
        bench.sweep_work()
    told = vars(wish) | {"side": bench.side, "steps": bench.steps, "inner": bench.inner}
    told["shape"] = bench.shape
    told["presets"] = presets
    found: dict[str, Any] = {"conditions": told, "costs": {}, "plain over ours": {}}
    for name, cost in bench.costs.items():
        found["costs"][name] = vars(cost)
        print(f"{name:55} {cost.rows:6} rows {cost.work:8.1f} {cost.seconds:8.1f} s "
              f"{cost.peak:7.3f} GB")  # fmt: skip
    for preset in () if counts else presets:
        for measure, of in {"time": _seconds, "peak": _peak}.items():
            found["plain over ours"][f"{preset}, {measure}"] = ratios(bench.costs, preset, of)
    print(json.dumps(found["plain over ours"], indent=1))
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"swap_{wish.what}_{bench.side}_{bench.device}.json"
    file.write_text(json.dumps(found, indent=1) + "\n")
    file.with_suffix(".md").write_text(page(found))


def page(found: dict[str, Any]) -> str:
    """What was found as Markdown."""
    said = ", ".join(f"{name} {value}" for name, value in found["conditions"].items())
    lines = ["# Null-text inversion and swaps, ours and the plain way", "", said, ""]
    lines += ["| | rows | work in rows | seconds | GB at most |", "| --- | --- | --- | --- | --- |"]
    for name, c in found["costs"].items():
        numbers = (f"{c[key]:.{digits}f}" for key, digits in FIGURES.items())
        lines.append(" | ".join([f"| {name}", str(c["rows"]), *numbers]) + " |")
    for name, ratios in found["plain over ours"].items():
        told = ", ".join(f"{part} {ratio:.2f}" for part, ratio in ratios.items())
        lines += ["", f"The plain way over ours, {name}: {told}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
