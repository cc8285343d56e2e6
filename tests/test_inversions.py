"""invert/direct.py and invert/negative_prompt.py, alone and under an edit, as recorded."""

from __future__ import annotations

from dataclasses import replace

from golden_model import GoldenCase, GoldenModel, golden_cases
from golden_swaps import alignment_of, apart, with_path
from understudy.diffusion.sampler import ddim_step, guided_noise, next_lower
from understudy.invert.direct import direct_steps
from understudy.invert.inversion import Inversion
from understudy.invert.negative_prompt import negative_prompt_steps
from understudy.transfer.loop import SwapStep, replay_steps, steady
from understudy.transfer.schedule import SwapSchedule


def edited(
    case: GoldenCase, model: GoldenModel, inversion: Inversion, self_maps: float, cross: float
) -> list[SwapStep]:
    """Prompt-to-prompt's refinement: A by word alignment, M up to 32 x 32, no phi."""
    want, steps = case.settings, case.settings["steps"]
    schedule = SwapSchedule(
        steps, range(0), range(int(steps * self_maps)), range(int((steps + 1) * cross))
    )
    prompts = want["source_prompt"], want["target_prompt"]
    return list(
        replay_steps(
            model,
            inversion,
            (want["target_prompt"],),
            schedule,
            guidance=want["guidance"],
            mixes=steady(model, [alignment_of(model, prompts)]),
        )
    )


def after(case: GoldenCase, prefix: str) -> dict[int, tuple[str, int]]:
    """Recorded arrays `<prefix>_after_NN_steps[_subK]`: steps -> key and stride."""
    import re

    found = {}
    for key in case.keys():
        match = re.fullmatch(rf"{case.name}/({prefix}_after_(\d+)_steps(?:_sub(\d))?)", key)
        if match:
            found[int(match[2])] = (match[1], int(match[3] or 1))
    return found


@golden_cases("f_direct_npi", where=lambda case: case.settings["method"].startswith("direct"))
def test_golden_direct_inversion(case: GoldenCase) -> None:
    want = case.settings
    model = case.model()
    *_, last = direct_steps(
        model, case.array("x0")[None], want["source_prompt"], steps=want["steps"]
    )
    inversion = last.inversion
    errors = {"x_T": apart(inversion.noise[0], case.array("x_T"))}
    path, text, empty = inversion.path, case.text(want["source_emb"]), case.text(want["uncond"])
    for index, offset in zip(want["offset_indices"], case.array("offset_source"), strict=True):
        timestep = inversion.timesteps[index]
        here = path[index][None]
        noise = guided_noise(model, here, timestep, text, empty, want["guidance"])
        end = next_lower(model.schedule, want["steps"], timestep)
        free = ddim_step(model.schedule, here, noise, timestep, end)
        errors[f"offset {index}"] = apart(path[index + 1] - free[0], offset)
    kinds = {
        "empty": (0.0, 0.0),
        "refine": (want["self_replace_steps"], want["cross_replace_steps"]),
    }
    for kind, (self_maps, cross) in kinds.items():
        steps = edited(case, model, inversion, self_maps, cross)
        errors[kind] = apart(steps[-1].target[0], case.array(f"{kind}_target_final"))
        for count, (key, every) in after(case, f"{kind}_target").items():
            ours = steps[count - 1].target[0, :, ::every, ::every]
            errors[key] = apart(ours, case.array(key))
        assert apart(steps[-1].source[0], case.array("x0")) == 0
    print(case.name, errors)
    assert max(errors.values()) < 1e-6


@golden_cases("f_direct_npi", where=lambda case: case.settings["method"].startswith("negative"))
def test_golden_negative_prompt_inversion(case: GoldenCase) -> None:
    want = case.settings
    model = case.model()
    *_, last = negative_prompt_steps(
        model,
        case.array("x0")[None],
        want["source_prompt"],
        steps=want["steps"],
        towards_empty=want["npi_interp"],
    )
    inversion = last.inversion
    errors = {"x_T": apart(inversion.noise[0], case.array("x_T"))}
    if f"{case.name}/uncond_used" in case.keys():
        errors["uncond"] = apart(inversion.null_embeddings[0], case.array("uncond_used"))
    walked = with_path(model, replace(inversion, guidance=want["guidance"])).replay
    errors["final"] = apart(walked[-1], case.array("reconstruction_final"))
    for count, (key, every) in after(case, "reconstruction").items():
        errors[key] = apart(walked[count, :, ::every, ::every], case.array(key))
    refine = want["refine"]
    before = model.rows
    steps = edited(
        case, model, inversion, refine["self_replace_steps"], refine["cross_replace_steps"]
    )
    assert model.rows - before == sum(step.rows for step in steps)
    errors["source"] = apart(walked[-1], case.array("refine_final")[0])
    errors["target"] = apart(steps[-1].target[0], case.array("refine_final")[1])
    print(case.name, errors, model.rows - before)
    assert max(errors.values()) < 1e-6
