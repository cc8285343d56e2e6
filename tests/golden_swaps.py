"""Recorded swaps as inversions, schedules and blends of ours, for the tests of swap/."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import plain_ddim
from golden_model import GoldenCase, GoldenModel
from understudy.diffusion.sampler import guided_output
from understudy.diffusion.text import Text
from understudy.diffusion.words import Alignment, align, exact_places
from understudy.invert.inversion import Inversion
from understudy.settings.swap import published_counts
from understudy.transfer.blend import Blend
from understudy.transfer.loop import SwapStep, replay_steps, steady
from understudy.transfer.schedule import SwapSchedule

START_BLEND, THRESHOLD = 0.2, 0.3  # of Photoswap's authors, where a record does not say
_AT = r"(?:final|after_step_(?P<step>\d+))(?:_sub(?P<every>\d+))?"
LATENTS, SOURCE = rf"target_{_AT}", _AT


def apart(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


def is_swap(side: Callable[[int], bool] = lambda side: True) -> Callable[[GoldenCase], bool]:
    """Whether a case is a swap, of latents of such a side."""
    return lambda case: (
        "self_output_replace_steps" in case.settings
        and side(case.array(f"/{case.settings['source']}/x_T").shape[-1])
    )


def prompts_of(case: GoldenCase) -> tuple[str, str]:
    """Source and target prompt."""
    return (
        case.prompt(text="source_prompt", emb="source_emb"),
        case.prompt(text="target_prompt", emb="target_emb"),
    )


def as_published(steps: int, self_output: float, self_map: float, cross_map: float) -> SwapSchedule:
    """The schedule of Photoswap's authors' code, from its fractions."""
    counts = published_counts(steps, self_output, self_map, cross_map).values()
    return SwapSchedule(steps, *map(range, counts))


def schedule_of(case: GoldenCase) -> SwapSchedule:
    want = case.settings
    return as_published(
        want["steps"],
        want["self_output_replace_steps"],
        want["self_map_replace_steps"],
        want["cross_map_replace_steps"],
    )


def alignment_of(model: GoldenModel, prompts: Sequence[str]) -> Alignment:
    """The published alignment, padding included."""
    tokens = [model.tokenize(prompt) for prompt in prompts]
    return align(*(t.ids[: t.length + 2] for t in tokens), model.max_tokens)


def inversion_of(case: GoldenCase, model: GoldenModel) -> Inversion:
    """The recorded noise and null embeddings, as an inversion whose path is not known."""
    source, nulls = case.settings["source"], null_key(case)
    return Inversion(
        method="seed",
        prompt=prompts_of(case)[0],
        model=model.name,
        fingerprint=model.fingerprint,
        guidance=case.settings["guidance"],
        times=plain_ddim.times(model.schedule, case.settings["steps"]),
        picture="",
        trajectory=case.array(f"/{source}/x_T")[None],
        null_embeddings=Text(case.array(nulls)) if nulls else None,
    )


def null_key(case: GoldenCase) -> str:
    """The array of null embeddings that the source's note names; "" for the empty prompt's own."""
    source = case.settings["source"]
    note = settings_of(case.folder).get(f"source/{source}", {}).get("null", "")
    named = [f"/{word}" for word in [*re.split(r"[\s(),;]+", note), f"{source}/null_embeddings"]]
    return next((key for key in named if case.has(key)), "")


@cache
def settings_of(folder: Path) -> dict[str, dict[str, str]]:
    return json.loads((folder / "c_photoswap.json").read_text())


@torch.no_grad()
def with_path(model: GoldenModel, inversion: Inversion) -> Inversion:
    """The same with the path its source takes, as null-text inversion stores it."""
    text, empty = model.embed([inversion.prompt]), model.embed([""])
    walked, first = [inversion.noise], inversion.uncond(0)
    first = model.predict(inversion.noise, inversion.times[0], empty if first is None else first)
    for index, (timestep, end) in enumerate(pairwise(inversion.times)):
        uncond = inversion.uncond(index)
        uncond = empty if uncond is None else uncond
        noise = guided_output(model, walked[-1], timestep, text, uncond, inversion.guidance)
        walked.append(plain_ddim.ddim_step(model.schedule, walked[-1], noise, timestep, end))
    return replace(inversion, replay=torch.cat(walked), first_output=first)


def blend_of(case: GoldenCase, model: GoldenModel) -> Blend | None:
    """The recorded blend, its words found by the published rule."""
    if not case.get("local_blend"):
        return None
    local = case.get("local_blend_settings", default={})
    places: list[tuple[int, ...]] = []
    for which, prompt in zip(("source", "target"), prompts_of(case), strict=True):
        recorded = local.get(f"{which}_token_positions")
        word = case.get(f"{which}_word")
        if word is None:
            places.append(tuple(recorded))
            continue
        words = [word] if isinstance(word, str) else word
        strings = model.tokenize(prompt).strings
        places.append(tuple(place for w in words for place in exact_places(prompt, w, strings)))
        assert recorded in (None, list(places[-1]))
    start = int(local.get("start_blend", START_BLEND) * case.settings["steps"])
    assert start == local.get("first_active_step_index", start)
    return Blend(start, places[0], (places[1],), local.get("threshold", THRESHOLD))


def run(case: GoldenCase, model: GoldenModel, inversion: Inversion) -> list[SwapStep]:
    """All steps of a recorded swap, ours."""
    aligned = alignment_of(model, prompts_of(case))
    for name in ("mapper", "alphas"):
        assert case.get(name) in (None, list(getattr(aligned, name)))
    return list(
        replay_steps(
            model,
            inversion,
            prompts_of(case)[1:],
            schedule_of(case),
            guidance=case.settings["guidance"],
            blend=blend_of(case, model),
            cross_maps=steady(model, [aligned]),
        )
    )


def compare(case: GoldenCase, steps: list[SwapStep]) -> dict[str, float]:
    """Largest difference to every recorded latent of the case and of its source."""
    errors: dict[str, float] = {}
    for key, found in case.matching(LATENTS):
        errors[key] = difference(case, key, found, [step.target for step in steps])
    source = re.escape(case.settings["source"])
    for key, found in case.matching(rf"/{source}/source(?P<tags>(?:_[a-z]+[\d.]+)*)/{SOURCE}"):
        if steps[-1].source is not None and is_of(case, found["tags"]):
            errors[key] = difference(case, key, found, [step.source for step in steps])
    for key, found in case.matching(r"mask_step_(\d+)"):
        mask, recorded = steps[int(found[1])].mask, case.array(key)[-1]
        assert mask is not None
        every = mask.shape[-1] // recorded.shape[-1]
        errors[key] = apart(mask[0, 0, ::every, ::every].double(), recorded.double())
    assert errors, f"{case.name} records nothing to compare"
    return errors


def difference(case: GoldenCase, key: str, found: re.Match[str], latents: Sequence[Any]) -> float:
    """Of the first row of latents after a step to an array that may be subsampled."""
    index, every = int(found["step"] or -1), int(found["every"] or 1)
    return apart(latents[index][0, :, ::every, ::every], case.array(key))


def is_of(case: GoldenCase, tags: str) -> bool:
    """Whether "_steps20_cfg7.5" in an array's name are the steps and guidance of this case."""
    told = dict(re.findall(r"_([a-z]+)([\d.]+)", tags))
    wanted = {"steps": case.settings["steps"], "cfg": case.settings["guidance"]}
    return all(float(told[name]) == value for name, value in wanted.items() if name in told)
