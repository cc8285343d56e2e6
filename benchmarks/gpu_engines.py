"""Null-text inversion, swaps, drags and learning on one GPU, ours and the plain way: for `gpu`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.drag_speed import Task, ours, plain
from benchmarks.gpu_table import (
    LEARNING,
    WAYS,
    Measure,
    Size,
    Table,
    Way,
    apart,
    measured,
    median,
    prepared,
    recorder,
    told,
    ways,
)
from benchmarks.learn_speed import our_step, plain_step, random_model
from benchmarks.plain import Plain, plain_null_text, plain_swap
from benchmarks.shapes import Shaped
from benchmarks.swap_speed import SOURCE, TARGET, WORDS, Bench
from understudy.diffusion.sampler import advance, guided
from understudy.diffusion.text import Text
from understudy.invert.inversion import Inversion
from understudy.invert.source import GIGABYTE, SourceFeatures
from understudy.jobs.execution import tf32
from understudy.learn.dreambooth import whole_model
from understudy.learn.lora import low_rank
from understudy.swap.blending import blend_of
from understudy.swap.photoswap import schedule_of, swap_steps
from understudy.transfer.loop import alignment
from understudy.transfer.source_target import Source, Target

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")

# Null-text inversion and swaps


def swaps(table: Table, compiled: bool) -> None:
    """Null-text inversion, a first and a later swap: plain, then ours each way."""
    size = table.size
    bench = Bench(size.side, size.steps, size.inner, size.shape, size.device)
    settings = bench.settings("paper")
    if not table.has_time("null-text and swaps, plain"):
        return
    make = partial(plain_swaps, table, bench, settings)
    start, nulls, right, (inverted, swapped) = table.answer("swap", make)
    for way in ways(compiled, WAYS):
        if not table.has_time(f"null-text and swaps, {way.name}"):
            continue
        model, features = prepared(size, way), SourceFeatures(room=64 * GIGABYTE)
        with tf32(model.device, way.tf32):
            # Libraries choose their kernels, and compiled ways compile, in a job that is not timed.
            other = SourceFeatures(room=64 * GIGABYTE)
            _, slow, (slow_first, _) = job(bench, model, settings, other)
            inversion, own, (first, later) = job(bench, model, settings, features)
            # The plain way's inversion, so that both swaps begin alike.
            same = replace(
                inversion, trajectory=start, null_embeddings=Text.cat(nulls), replay=None,
                first_output=None,
            )  # fmt: skip
            made = swap_of(model, same, settings, None)
        difference, kept = apart(made, right), inversion.replay
        assert kept is not None
        both = (inverted + swapped) / (own.seconds + first.seconds)
        table.add("null-text", way.name, own.seconds, own.gigabytes,
                  quicker=inverted / own.seconds, first_ms=slow.seconds * 1e3, **told(model),
                  dB=decibels(kept[-1:], bench.photo()))  # fmt: skip
        table.add("first swap", way.name, first.seconds, first.gigabytes, apart=difference,
                  first_ms=slow_first.seconds * 1e3, quicker=swapped / first.seconds,
                  quicker_with_null_text=both)  # fmt: skip
        table.add("later swap", way.name, later.seconds, later.gigabytes,
                  quicker=swapped / later.seconds)  # fmt: skip


def plain_swaps(
    table: Table, bench: Bench, settings: Any
) -> tuple[Tensor, list[Text], list[Tensor], tuple[float, float]]:
    """The noise, the null embeddings and the swap of the plain way, and the seconds of inversion
    and swap; adds its rows."""
    size, model = table.size, cast(Any, bench.model())
    tune = partial(
        plain_null_text, model, bench.photo(), SOURCE, guidance=7.5, inner_steps=size.inner
    )
    tune(steps=1)  # libraries choose their kernels
    with measured(size.device) as inverted:
        start, nulls = tune(steps=size.steps)
    # Before the plain swap leaves its processors in the model.
    replayed = replayed_by(model, start, nulls, model.embed([SOURCE]))
    plan = Plain(schedule_of(settings), alignment(model, SOURCE, TARGET), 1024, stores_all=True)
    spots = blended(bench, model, settings, start)
    with measured(size.device) as swapped:
        right = plain_swap(
            model, start, nulls, (SOURCE, TARGET), plan, guidance=7.5,
            times=model.schedule.times(size.steps), blend=spots,
        )  # fmt: skip
    table.add("null-text", "plain", inverted.seconds, inverted.gigabytes,
              dB=decibels(replayed, bench.photo()))  # fmt: skip
    table.add("swap", "plain", swapped.seconds, swapped.gigabytes)
    return start, nulls, right, (inverted.seconds, swapped.seconds)


def blended(bench: Bench, model: Any, settings: Any, start: Tensor) -> Any:
    """What the plain loop needs to blend as the preset does; None where it does not."""
    noise = Inversion("seed", SOURCE, model.name, model.fingerprint, 7.5, (), "", start)
    blend = blend_of(model, Source(noise), (Target(TARGET, WORDS),), settings)
    if blend is None:
        return None
    return blend.start, bench.blend_cells, blend.source_places, blend.target_places[0]


def job(
    bench: Bench, model: Shaped, settings: Any, features: SourceFeatures
) -> tuple[Inversion, Measure, tuple[Measure, Measure]]:
    """Ours: inversion, first swap, later swap."""
    with measured(bench.device) as own:
        inversion: Inversion = bench.inverted(model, settings, features)
    found = list[Measure]()
    for _ in range(2):
        with measured(bench.device) as one:
            swap_of(model, inversion, settings, features)
        found.append(one)
    return inversion, own, (found[0], found[1])


def swap_of(
    model: Shaped, inversion: Inversion, settings: Any, features: SourceFeatures | None
) -> Tensor:
    """The latents of a swap."""
    given: Any = model
    *_, last = swap_steps(given, Source(inversion, features), Target(TARGET, WORDS), settings)
    return last.target


def decibels(found: Tensor, photo: Tensor) -> float:
    """How well latents are those of the photo: peak signal over noise, the peak being the photo's
    largest value."""
    error = (found.to(photo) - photo).square().mean().clamp(min=1e-12)
    return float(10 * torch.log10(photo.abs().max().square() / error))


@torch.no_grad()
def replayed_by(model: Shaped, start: Tensor, nulls: Sequence[Text], text: Text) -> Tensor:
    """The latents that guided sampling gives with a null embedding for each step."""
    x = start
    for (t, end), null in zip(pairwise(model.schedule.times(len(nulls))), nulls, strict=True):
        uncond, cond = model.predict(x.repeat(2, 1, 1, 1), t, Text.cat([null, text])).chunk(2)
        x = advance(model.schedule, x, guided(uncond, cond, 7.5), t, end)
    return x


# Drags


SETTLED = 5  # steps that are not timed: until ours is recorded


def drags(table: Table, compiled: bool) -> None:
    """A step of a drag: plain, ours kernel by kernel, and ours as users run it. Not compiled.

    Memory is the highest of all steps, that of the recording among them: a replay allocates none.
    """
    size = table.size
    if compiled:
        return
    for pixels in size.pictures:
        for case in ("1 point", "3 points", "20 points"):
            if not table.has_time(f"drag, {pixels} pixels, {case}"):
                continue
            steps = SETTLED + size.drag_steps
            task = Task(case, pixels, steps, size.device, resolution=min(128, pixels))
            base, right, what = 0.0, None, f"drag, {pixels} pixels, {case}: a step"
            eager = replace(task, recorded=False)
            sides = {"plain": plain(task), "ours, not recorded": ours(eager), "ours": ours(task)}
            for how, walk in sides.items():
                with measured(size.device) as memory:
                    seconds, (_, w) = stepping(size.device, walk)
                base, more = base or seconds, dict[str, float]()
                if right is not None:
                    more = {"quicker": base / seconds, "apart": apart(w, right)}
                right = w if right is None else right
                table.add(what, how, seconds, memory.gigabytes, **more)


def stepping(device: str, steps: Iterator[Any]) -> tuple[float, Any]:
    """Median seconds of a step after the first few, and what the last one gave."""
    last, seconds = None, list[float]()
    while True:
        with measured(device, memory=False) as found:
            step = next(steps, None)
        if step is None:
            timed = sorted(seconds[SETTLED:])
            return timed[len(timed) // 2], last
        last = step
        seconds.append(found.seconds)


# Learning


def learning(table: Table, compiled: bool) -> None:
    """A training step of LoRA and of all weights."""
    for kind in ("LoRA", "DreamBooth, all weights"):
        what = f"learning, {kind}: a step"
        for way in ways(compiled, LEARNING):
            if not table.has_time(f"learning, {kind}, {way.name}"):
                continue
            seconds, gigabytes, more = training_step(table.size, way, low=kind == "LoRA")
            if plain := table.known(what, "plain"):
                more["quicker"] = plain["ms"] / 1e3 / seconds
            if "loss" in more:
                right = table.known(what, "float32") or more
                more["apart"] = abs(more["loss"] - right["loss"]) / right["loss"]
            table.add(what, way.name, seconds, gigabytes, **more)


def training_step(size: Size, way: Way, *, low: bool) -> tuple[float, float, dict[str, Any]]:
    """Median seconds of a step, its memory in GB, the first loss of ours and what there is to say
    of graphs. low: LoRA."""
    how: dict[str, Any] = {"rank": 4, "alpha": 4.0, "train_text": False, "seed": 0}
    torch.manual_seed(0)
    model = random_model(size.width, size.device)
    photos = torch.rand(2, 3, size.photo, size.photo) * 2 - 1
    if way.compiled:
        model.compile(backend=size.backend)
    if way.graphs:
        model.graph(capturer=recorder(size.device))
    method = low_rank(model, targets=TARGETS, **how) if low else whole_model(
        model, train_text=False
    )  # fmt: skip
    with method as trainable, tf32(model.device, way.tf32):
        if way.name == "plain":
            step = plain_step(model, trainable, photos)
        else:
            half = None if way.dtype == torch.float32 else way.dtype
            step = our_step(model, trainable, photos, half)
        first = step()
        step()  # recorded
        with measured(size.device) as memory:
            seconds = median(size.device, step, 5)
        more = told(model)
    return seconds, memory.gigabytes, more if first is None else {"loss": first.loss, **more}
