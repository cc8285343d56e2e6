"""invert/null_text.py: against the recorded runs, and what it must never do."""

import pytest
import torch

from golden_model import GoldenCase, golden_cases
from understudy.diffusion.text import Text
from understudy.invert.inversion import ddim_inversion_steps
from understudy.invert.null_text import Moment, null_text_step, null_text_steps
from understudy.settings import InvertSettings

END_TO_END = 1e-6


def apart(a, b):
    assert a.shape == b.shape
    return (a - b).abs().max().item()


OPTIONS = ("steps", "guidance", "inner_steps", "epsilon", "learning_rate")


def knobs(case: GoldenCase) -> dict[str, float]:
    return {name: case.settings[name] for name in OPTIONS if name in case.settings}


def told(case: GoldenCase) -> InvertSettings:
    """The record's settings; below 0 an epsilon means what 0 does: no early stop."""
    return InvertSettings(**{**knobs(case), "epsilon": max(case.get("epsilon", default=1e-5), 0.0)})


def prompt_of(case: GoldenCase) -> str:
    return case.prompt(text="prompt", emb="cond")


def is_long(case: GoldenCase) -> bool:
    """Whether early stops and many steps make the whole run chaotic: single steps then."""
    return case.get("epsilon", default=1e-5) > 0 and case.settings["steps"] > 30


def tolerance(case: GoldenCase) -> float:
    """The README's: 1e-6, and 1e-5 for 30 steps."""
    early = case.get("epsilon", default=1e-5) > 0
    return 1e-5 if early and case.settings["steps"] > 20 else END_TO_END


@golden_cases("b_null_text", where=lambda case: not is_long(case))
def test_golden_null_text_end_to_end(case: GoldenCase) -> None:
    want, model, steps = case.settings, case.model(), case.settings["steps"]
    walked = list(null_text_steps(model, case.array("x0")[None], prompt_of(case), told(case)))
    inversion = walked[-1].inversion
    moving = steps - (inversion.times[-2] == 0)  # a step to the same timestep tunes nothing
    errors = {}
    if case.has("x_T"):
        errors["x_T"] = apart(inversion.noise[0], case.array("x_T"))
    for name, ours, indices in (
        ("null_embeddings", inversion.null_embeddings.tokens, want.get("null_indices")),
        ("reconstruction", inversion.replay, want.get("reconstruction_indices")),
    ):
        if indices is not None and case.has(name):
            errors[name] = apart(ours[indices], case.array(name))
    if case.has("inner_counts"):
        counts = [step.inner for step in walked[steps:]]
        assert counts[:moving] == case.array("inner_counts").tolist()[:moving]
    if case.has("losses"):
        pairs = zip(walked[steps:], case.array("losses"), strict=True)
        errors["loss"] = max(abs(step.loss - row[~row.isnan()][-1].item()) for step, row in pairs)
    print(case.name, errors)
    assert max(errors.values()) < tolerance(case)


@golden_cases("b_null_text", where=is_long)
def test_golden_null_text_one_step_at_a_time(case: GoldenCase) -> None:
    want, model = case.settings, case.model()
    *_, last = ddim_inversion_steps(
        model, case.array("x0")[None], prompt_of(case), steps=want["steps"]
    )
    inversion = last.inversion
    assert apart(inversion.noise[0], case.array("x_T")) < 1e-9
    nulls = dict(zip(want["null_indices"], case.array("null_embeddings"), strict=True))
    latents = dict(zip(want["reconstruction_indices"], case.array("reconstruction"), strict=True))
    compared = 0
    for index in nulls:
        before = case.empty.tokens[0] if index == 0 else nulls.get(index - 1)
        if before is None or index not in latents or index + 1 not in latents:
            continue
        step = null_text_step(
            model,
            latents[index][None],
            inversion.trajectory[want["steps"] - 1 - index][None],
            case.text(want["cond"]),
            Text(before[None]),
            Moment(index, inversion.times[index], inversion.times[index + 1]),
            told(case),
        )
        errors = (
            apart(step.null.tokens[0], nulls[index]),
            apart(step.latents[0], latents[index + 1]),
        )
        print(case.name, index, errors)
        assert max(errors) < 1e-9
        if case.has("losses"):
            losses = case.array("losses")[index]
            losses = losses[~losses.isnan()]
            assert torch.allclose(torch.tensor(step.losses).double(), losses, rtol=1e-4)
        compared += 1
    if not compared:
        pytest.skip("no step is recorded with the state before it; only x_T was compared")
