"""invert/direct.py and invert/negative_prompt.py, alone and under an edit, as recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from golden_edits import refined_steps
from golden_model import GoldenCase, golden_cases
from golden_swaps import apart, prompts_of, with_path
from plain_ddim import ddim_step
from understudy.diffusion.sampler import guided_output
from understudy.invert.direct import direct_steps
from understudy.invert.negative_prompt import negative_prompt_steps


def after(case: GoldenCase, prefix: str, latents: Sequence[Tensor], first: int) -> dict[str, float]:
    """Differences to `<prefix>_final` and `<prefix>_after_NN_steps[_subK]`.

    latents "c h w": one for each number of steps done, from `first` on.
    """
    errors = {}
    for key, found in case.matching(rf"{prefix}_(?:final|after_(\d+)_steps)(?:_sub(\d+))?"):
        every = int(found[2] or 1)
        ours = latents[int(found[1]) - first if found[1] else -1]
        errors[key] = apart(ours[..., ::every, ::every], case.array(key))
    return errors


def inverted(case: GoldenCase) -> Tensor:
    return case.array("x0")[None]


@golden_cases("f_direct_npi", where=lambda case: case.settings["method"].startswith("direct"))
def test_golden_direct_inversion(case: GoldenCase) -> None:
    want, model = case.settings, case.model()
    source, _ = prompts_of(case)
    *_, last = direct_steps(model, inverted(case), source, steps=want["steps"])
    inversion = last.inversion
    errors = {"x_T": apart(inversion.noise[0], case.array("x_T"))} if case.has("x_T") else {}
    path, text = inversion.path, model.embed([source])
    indices = case.get("offset_indices", default=())
    for index, offset in zip(indices, case.array("offset_source") if indices else (), strict=True):
        timestep, end = inversion.times[index : index + 2]
        here = path[index][None]
        noise = guided_output(model, here, timestep, text, case.empty, want["guidance"])
        free = ddim_step(model.schedule, here, noise, timestep, end)
        errors[f"offset {index}"] = apart(path[index + 1] - free[0], offset)
    without = {"self_replace_steps": 0.0, "cross_replace_steps": 0.0}
    for kind, how in (("empty", without), ("refine", want)):
        if not case.matching(rf"{kind}_target_.*") or "cross_replace_steps" not in how:
            continue
        steps = refined_steps(case, model, inversion, how)
        errors |= after(case, f"{kind}_target", [step.target[0] for step in steps], 1)
        assert apart(steps[-1].source[0], case.array("x0")) == 0
    print(case.name, errors)
    assert max(errors.values()) < 1e-6


@golden_cases("f_direct_npi", where=lambda case: case.settings["method"].startswith("negative"))
def test_golden_negative_prompt_inversion(case: GoldenCase) -> None:
    want, model = case.settings, case.model()
    source, _ = prompts_of(case)
    *_, last = negative_prompt_steps(
        model,
        inverted(case),
        source,
        steps=want["steps"],
        towards_empty=want.get("npi_interp", 0.0),
    )
    inversion = last.inversion
    errors = {"x_T": apart(inversion.noise[0], case.array("x_T"))} if case.has("x_T") else {}
    if case.has("uncond_used"):
        used = case.array("uncond_used")
        errors["uncond"] = apart(inversion.null_embeddings.tokens[0].reshape(used.shape), used)
    walked = with_path(model, replace(inversion, guidance=want["guidance"])).replay
    errors |= after(case, "reconstruction", list(walked), 0)
    if case.has("refine_final"):
        before = model.nfe
        steps = refined_steps(case, model, inversion, want["refine"])
        assert model.nfe - before == sum(step.nfe for step in steps)
        errors["source"] = apart(walked[-1], case.array("refine_final")[0])
        errors["target"] = apart(steps[-1].target[0], case.array("refine_final")[1])
    print(case.name, errors)
    assert max(errors.values()) < 1e-6
