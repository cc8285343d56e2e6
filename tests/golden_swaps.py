"""Recorded swaps as inversions, schedules and blends of ours, for the tests of swap/."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from golden_model import GoldenCase, GoldenModel
from understudy.diffusion.sampler import ddim_step, guided_noise, next_lower, timesteps
from understudy.diffusion.words import Alignment, align, exact_places
from understudy.invert.inversion import Inversion
from understudy.transfer.blend import Blend
from understudy.transfer.loop import SwapStep, replay_steps, steady
from understudy.transfer.schedule import SwapSchedule, as_published

FILES = {64: "c_photoswap_64", 32: "c_photoswap_32"}


def apart(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


def side(case: GoldenCase) -> int:
    """Side of the latents of a recorded swap, 64 or 32."""
    key = f"{case.name}/target_final"
    return next(size for size, file in FILES.items() if key in case.keys(file))


def is_swap(size: int):
    return lambda case: "target_prompt" in case.settings and side(case) == size


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
    want = case.settings
    note = settings_of(case.folder)[f"source/{want['source']}"]["null"]
    stored = re.match(r"\w+/null_embeddings", note)
    return Inversion(
        method="seed",
        prompt=want["source_prompt"],
        model=model.name,
        fingerprint=model.fingerprint,
        guidance=want["guidance"],
        timesteps=tuple(timesteps(model.schedule, want["steps"])),
        picture="",
        trajectory=case.array(f"/{want['source']}/x_T", FILES[side(case)])[None],
        null_embeddings=case.array("/" + stored[0], FILES[64]) if stored else None,
    )


@cache
def settings_of(folder: Path) -> dict[str, dict[str, str]]:
    return json.loads((folder / "c_photoswap.json").read_text())


@torch.no_grad()
def with_path(model: GoldenModel, inversion: Inversion) -> Inversion:
    """The same with the path its source takes, as null-text inversion stores it."""
    text, empty = model.embed([inversion.prompt]), model.embed([""])
    walked, first = [inversion.noise], inversion.uncond(0)
    first = model.predict_noise(
        inversion.noise, inversion.timesteps[0], empty if first is None else first
    )
    for index, timestep in enumerate(inversion.timesteps):
        uncond = inversion.uncond(index)
        uncond = empty if uncond is None else uncond
        noise = guided_noise(model, walked[-1], timestep, text, uncond, inversion.guidance)
        end = next_lower(model.schedule, inversion.steps, timestep)
        walked.append(ddim_step(model.schedule, walked[-1], noise, timestep, end))
    return replace(inversion, replay=torch.cat(walked), first_noise=first)


def blend_of(case: GoldenCase, model: GoldenModel) -> Blend | None:
    """The recorded blend, its words found by the published rule."""
    want = case.settings
    if not want["local_blend"]:
        return None
    local, places = want["local_blend_settings"], list[tuple[int, ...]]()
    for which in ("source", "target"):
        prompt = want[f"{which}_prompt"]
        pieces = model.tokenize(prompt).pieces
        places.append(exact_places(prompt, want[f"{which}_word"], pieces))
        assert list(places[-1]) == local[f"{which}_token_positions"]
    start = int(local["start_blend"] * want["steps"])
    assert start == local["first_active_step_index"]
    return Blend(start, places[0], (places[1],), local["threshold"])


def run(case: GoldenCase, model: GoldenModel, inversion: Inversion) -> list[SwapStep]:
    """All steps of a recorded swap, ours."""
    want = case.settings
    aligned = alignment_of(model, (want["source_prompt"], want["target_prompt"]))
    assert list(aligned.mapper) == want["mapper"]
    assert list(aligned.alphas) == want["alphas"]
    return list(
        replay_steps(
            model,
            inversion,
            (want["target_prompt"],),
            schedule_of(case),
            guidance=want["guidance"],
            blend=blend_of(case, model),
            mixes=steady(model, [aligned]),
        )
    )


def compare(case: GoldenCase, steps: list[SwapStep]) -> dict[str, float]:
    """Largest difference to every recorded latent of the case and of its source."""
    file = FILES[side(case)]
    source = f"{case.settings['source']}/source_cfg{case.settings['guidance']}"
    errors = {"target_final": apart(steps[-1].target[0], case.array("target_final", file))}
    if steps[-1].source is not None:
        final = case.array(f"/{source}/final", file)
        errors["source_final"] = apart(steps[-1].source[0], final)
    pattern = rf"({re.escape(case.name)}/target_|{re.escape(source)}/)after_step_(\d+)_sub(\d)"
    for key in case.keys(file):
        if found := re.fullmatch(pattern, key):
            step, every = steps[int(found[2])], int(found[3])
            latents = step.target if found[1].endswith("target_") else step.source
            if latents is not None:
                recorded = case.array("/" + key, file)
                errors[key] = apart(latents[0, :, ::every, ::every], recorded)
        elif found := re.fullmatch(rf"{re.escape(case.name)}/mask_step_(\d+)", key):
            mask, recorded = steps[int(found[1])].mask, case.array("/" + key, file)[1]
            assert mask is not None
            every = mask.shape[-1] // recorded.shape[-1]
            errors[key] = apart(mask[0, 0, ::every, ::every].double(), recorded.double())
    return errors
