"""Times, memory and equality of every engine on one GPU, in at most eight minutes.

    scripts/bench gpu [--minutes 8] [--device cuda] [--miniature]

Stable Diffusion 1.5's U-Net and StyleGAN2's config-f with random weights. Each engine runs as
published ("plain", float32 without TF32) and as ours in several ways: float32, TF32, TF32 compiled,
bfloat16, bfloat16 compiled. Printed as it goes; what does not fit into the time is named. The most
telling parts come first. --miniature: small networks and few steps, to try the script on a CPU.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.drag_speed import Task, ours, plain
from benchmarks.learn_speed import our_step, plain_step, random_model
from benchmarks.plain import Plain, plain_null_text, plain_swap
from benchmarks.rows import RESULTS, page
from benchmarks.shapes import Shaped
from benchmarks.speed import machine
from benchmarks.swap_speed import SOURCE, TARGET, WORDS, Bench
from understudy.invert.inversion import Inversion
from understudy.invert.source import GIGABYTE, SourceFeatures
from understudy.jobs.execution import tf32
from understudy.learn.dreambooth import whole_model
from understudy.learn.lora import low_rank
from understudy.models.compiled import Compiled
from understudy.swap.photoswap import blend_of, schedule_of, swap_steps
from understudy.transfer.loop import alignment
from understudy.transfer.source_target import Source, Target

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True)
class Way:
    """How the network runs."""

    name: str
    dtype: torch.dtype = torch.float32
    tf32: bool = False
    compiled: bool = False


WAYS = (
    Way("float32"),
    Way("TF32", tf32=True),
    Way("TF32, compiled", tf32=True, compiled=True),
    Way("bfloat16", torch.bfloat16),
    Way("bfloat16, compiled", torch.bfloat16, compiled=True),
)


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    device: str
    shape: str = "sd15"
    side: int = 64
    steps: int = 10
    inner: int = 3
    pictures: tuple[int, ...] = (512, 1024)
    width: float = 1.0
    photo: int = 512
    backend: str | None = None  # of torch.compile


@dataclass
class Table:
    """The rows so far, and the time that is left."""

    size: Size
    ends: float
    rows: list[dict[str, Any]]
    skipped: list[str]

    def add(self, what: str, how: str, seconds: float, gigabytes: float, **more: Any) -> None:
        """Keep and print a row. more: ratios, differences, whatever there is to say."""
        row = {"what": what, "how": how, "ms": seconds * 1e3, "GB": gigabytes, **more}
        self.rows.append(row)
        print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}),
              flush=True)  # fmt: skip

    def has_time(self, what: str) -> bool:
        """Whether a part may begin; noted where it may not."""
        if time.monotonic() < self.ends:
            return True
        self.skipped.append(what)
        print(f"skipped for want of time: {what}", flush=True)
        return False


@dataclass
class Measure:
    """Seconds and gigabytes of what ran inside `measured`."""

    seconds: float = 0.0
    gigabytes: float = 0.0


@contextmanager
def measured(device: str) -> Generator[Measure]:
    """Clock and peak memory (of a GPU) inside the block."""
    found, cuda = Measure(), device.startswith("cuda")
    held = 0
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    started = time.perf_counter()
    yield found
    if cuda:
        torch.cuda.synchronize()
        found.gigabytes = (torch.cuda.max_memory_allocated() - held) / 1e9
    found.seconds = time.perf_counter() - started


def median(device: str, run: Callable[[], Any], times: int = 5) -> float:
    """Median seconds of a run after one that is not counted."""
    run()
    seconds = list[float]()
    for _ in range(times):
        with measured(device) as found:
            run()
        seconds.append(found.seconds)
    return sorted(seconds)[times // 2]


# Evaluations of the network


def evaluations(table: Table) -> None:
    """One call of two rows, each way, and its share of what a large matrix product reaches."""
    size = table.size
    for way in WAYS:
        if not table.has_time(f"evaluation, {way.name}"):
            return
        model = prepared(size, way)
        text, x = model.embed([SOURCE, TARGET]), noise(size, 2)
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            Shaped(size.shape, size.device).predict(x, 500, text.to(torch.float32))
        with torch.no_grad(), tf32(model.device, way.tf32):
            seconds = median(size.device, partial(model.predict, x, 500, text))
            most = reached(size.device, way.dtype)
        achieved = counted.get_total_flops() / seconds / 1e12
        table.add("evaluation of 2 rows", way.name, seconds, 0.0, TFLOPS=achieved,
                  share_of_matmul=achieved / most)  # fmt: skip


def reached(device: str, dtype: torch.dtype) -> float:
    """TFLOPS of one large matrix product."""
    side = 8192 if device.startswith("cuda") else 512
    a = torch.randn(side, side, device=device, dtype=dtype)
    return 2 * side**3 / median(device, lambda: a @ a) / 1e12


def prepared(size: Size, way: Way) -> Shaped:
    """A model that runs this way."""
    model = Shaped(size.shape, size.device, way.dtype)
    model.denoiser.compiled = Compiled(model.unet, size.backend) if way.compiled else None
    return model


def noise(size: Size, rows: int) -> Tensor:
    drawn = torch.randn(rows, 4, size.side, size.side, generator=torch.Generator().manual_seed(1))
    return drawn.to(size.device)


# Null-text inversion and swaps


def swaps(table: Table) -> None:
    """Null-text inversion, a first and a later swap: plain, then ours each way."""
    size = table.size
    bench = Bench(size.side, size.steps, size.inner, size.shape, size.device)
    settings = bench.settings("paper")
    model = bench.model()
    with measured(size.device) as inverted:
        start, nulls = plain_null_text(
            model, bench.photo(), SOURCE, steps=size.steps, guidance=7.5, inner_steps=size.inner
        )
    plan = Plain(schedule_of(settings), alignment(model, SOURCE, TARGET), 1024, stores_all=True)
    spots = blended(bench, model, settings, start)
    with measured(size.device) as swapped:
        right = plain_swap(
            model, start, nulls, (SOURCE, TARGET), plan, guidance=7.5,
            times=model.schedule.times(size.steps), blend=spots,
        )  # fmt: skip
    table.add("null-text", "plain", inverted.seconds, inverted.gigabytes)
    table.add("swap", "plain", swapped.seconds, swapped.gigabytes)
    for way in WAYS:
        if not table.has_time(f"null-text and swaps, {way.name}"):
            return
        model, features = prepared(size, way), SourceFeatures(room=64 * GIGABYTE)
        with tf32(model.device, way.tf32):
            if way.compiled:
                job(bench, model, settings, SourceFeatures(room=64 * GIGABYTE))
            own, (first, later), made = job(bench, model, settings, features)
        apart = _apart(made, right)
        both = (inverted.seconds + swapped.seconds) / (own.seconds + first.seconds)
        table.add("null-text", way.name, own.seconds, own.gigabytes)
        table.add("first swap", way.name, first.seconds, first.gigabytes, apart=apart,
                  quicker_with_null_text=both)  # fmt: skip
        table.add("later swap", way.name, later.seconds, later.gigabytes,
                  quicker=swapped.seconds / later.seconds)  # fmt: skip


def blended(bench: Bench, model: Shaped, settings: Any, start: Tensor) -> Any:
    """What the plain loop needs to blend as the preset does; None where it does not."""
    noise = Inversion("seed", SOURCE, model.name, model.fingerprint, 7.5, (), "", start)
    blend = blend_of(model, Source(noise), (Target(TARGET, WORDS),), settings)
    if blend is None:
        return None
    cells = min(256, bench.side**2 // 16)
    return blend.start, cells, blend.source_places, blend.target_places[0]


def job(
    bench: Bench, model: Shaped, settings: Any, features: SourceFeatures
) -> tuple[Measure, tuple[Measure, Measure], Tensor]:
    """Ours: inversion, first swap, later swap."""
    with measured(bench.device) as own:
        inversion: Inversion = bench.inverted(model, settings, features)
    found, made = list[Measure](), None
    for _ in range(2):
        with measured(bench.device) as one:
            *_, last = swap_steps(
                model, Source(inversion, features), Target(TARGET, WORDS), settings
            )
        found.append(one)
        made = last.target
    assert made is not None
    return own, (found[0], found[1]), made


def _apart(made: Tensor, right: Any) -> float:
    """The largest difference, as a share of the right answer's largest value."""
    expected = right if isinstance(right, Tensor) else right[-1]
    expected = expected[-1:].to(made)
    return float((made - expected).abs().max() / expected.abs().max())


# Drags


def drags(table: Table) -> None:
    """A step of a drag, ours and plain."""
    size = table.size
    for pixels in size.pictures:
        for case in ("1 point", "3 points", "20 points"):
            if not table.has_time(f"drag, {pixels} pixels, {case}"):
                continue
            task = Task(case, pixels, 8, size.device)
            with measured(size.device) as memory:
                own = stepping(size.device, ours(task))
            with measured(size.device) as plain_memory:
                seconds = stepping(size.device, plain(task))
            what = f"drag, {pixels} pixels, {case}: a step"
            table.add(what, "plain", seconds, plain_memory.gigabytes)
            table.add(what, "ours", own, memory.gigabytes, quicker=seconds / own)


def stepping(device: str, steps: Iterator[Any]) -> float:
    """Median seconds of a step after the first."""
    next(steps)
    seconds = list[float]()
    while True:
        with measured(device) as found:
            ended = next(steps, None) is None
        if ended:
            return sorted(seconds)[len(seconds) // 2]
        seconds.append(found.seconds)


# Learning


def learning(table: Table) -> None:
    """A training step of LoRA and of all weights."""
    size = table.size
    how: dict[str, Any] = {"rank": 4, "alpha": 4.0, "train_text": False, "seed": 0}
    for kind in ("LoRA", "DreamBooth, all weights"):
        if not table.has_time(f"learning, {kind}"):
            return
        base = 0.0
        for way, loop in (("plain", plain_step), ("TF32", our_step), ("TF32, compiled", our_step)):
            model = random_model(size.width, size.device)
            photos = torch.rand(2, 3, size.photo, size.photo) * 2 - 1
            if way.endswith("compiled"):
                model.compile(backend=size.backend)
            low = kind == "LoRA"
            method = low_rank(model, targets=TARGETS, **how) if low else whole_model(
                model, train_text=False
            )  # fmt: skip
            with method as trainable, tf32(model.device, way != "plain"):
                step = loop(model, trainable, photos)
                with measured(size.device) as memory:
                    seconds = median(size.device, step, 3)
            base = base or seconds
            table.add(f"learning, {kind}: a step", way, seconds, memory.gigabytes,
                      quicker=base / seconds)  # fmt: skip


# What the time goes to


def profile(table: Table) -> None:
    """The ten kernels that take most of a guided evaluation in bfloat16; attention's backend."""
    size = table.size
    if not table.has_time("profile"):
        return
    model = prepared(size, WAYS[3])
    text, x = model.embed([SOURCE, TARGET]), noise(size, 2)
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if size.device.startswith("cuda"):
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.no_grad():
        model.predict(x, 500, text)
        with torch.profiler.profile(activities=kinds) as seen:
            model.predict(x, 500, text)
    by = "self_cuda_time_total" if len(kinds) == 2 else "self_cpu_time_total"
    print(seen.key_averages().table(sort_by=by, row_limit=10), flush=True)
    print(f"flash attention in bfloat16: {flash(size, torch.bfloat16)}, in float32: "
          f"{flash(size, torch.float32)}", flush=True)  # fmt: skip


def flash(size: Size, dtype: torch.dtype) -> str:
    """PyTorch's own answer whether attention of the largest layer takes the flash kernel."""
    if not size.device.startswith("cuda"):
        return "no CUDA"
    from torch.backends.cuda import SDPAParams, can_use_flash_attention

    q = torch.randn(2, 8, size.side**2, 40, device=size.device, dtype=dtype)
    return str(can_use_flash_attention(SDPAParams(q, q, q, None, 0.0, False, False)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--miniature", action="store_true")
    wish = parser.parse_args()
    size = Size(wish.device)
    if wish.miniature:
        size = Size(wish.device, "small", 8, 2, 1, (64,), 0.1, 64, "eager")
    table = Table(size, time.monotonic() + 60 * wish.minutes, [], [])
    torch.backends.cudnn.allow_tf32 = False  # off unless a way asks for it
    for part in (evaluations, swaps, drags, learning, profile):
        part(table)
    if wish.miniature:
        return
    names = sorted({key for row in table.rows for key in row} - {"what", "how"})
    intro = ["# Every engine on one GPU", "", ", ".join(f"{k} {v}" for k, v in machine().items())]
    intro += [f"Skipped for want of time: {', '.join(table.skipped)}."] if table.skipped else []
    cells = (
        [row["what"], row["how"], *(f"{row[n]:.3g}" if n in row else "" for n in names)]
        for row in table.rows
    )
    print(page(RESULTS / "gpu.json", table.rows, intro, ("", "how", *names), cells))


if __name__ == "__main__":
    main()
