"""invert/null_text.py: against the recorded runs, and what it must never do."""

import torch

from golden_model import GoldenCase, golden_cases
from understudy.invert.inversion import ddim_inversion_steps
from understudy.invert.null_text import null_text_step, null_text_steps

END_TO_END = 1e-6


def apart(a, b):
    assert a.shape == b.shape
    return (a - b).abs().max().item()


def knobs(case: GoldenCase) -> dict[str, float]:
    return {name: case.settings[name] for name in ("steps", "guidance", "inner_steps", "epsilon")}


def is_long(case: GoldenCase) -> bool:
    """Whether early stops and 50 steps make the whole run chaotic: single steps then."""
    want = case.settings
    return want["epsilon"] > 0 and want["steps"] > 30


def tolerance(case: GoldenCase) -> float:
    """The README's: 1e-6, and 1e-5 for 30 steps."""
    return 1e-5 if case.settings["epsilon"] > 0 and case.settings["steps"] > 20 else END_TO_END


@golden_cases("b_null_text", where=lambda case: not is_long(case))
def test_golden_null_text_end_to_end(case: GoldenCase) -> None:
    want = case.settings
    model = case.model(steps_offset=want["steps_offset"])
    walked = list(null_text_steps(model, case.array("x0")[None], want["prompt"], **knobs(case)))
    steps, inversion = want["steps"], walked[-1].inversion
    still = want["steps_offset"] == 0
    counts = [step.inner for step in walked[steps:]]
    expected = case.array("inner_counts").tolist()
    assert counts[: steps - still] == expected[: steps - still]
    errors = {
        "x_T": apart(inversion.noise[0], case.array("x_T")),
        "null": apart(
            inversion.null_embeddings[want["null_indices"]], case.array("null_embeddings")
        ),
        "replay": apart(
            inversion.replay[want["reconstruction_indices"]], case.array("reconstruction")
        ),
        "loss": max(
            abs(step.loss - losses[count - 1].item())
            for step, losses, count in zip(
                walked[steps:], case.array("losses"), expected, strict=True
            )
        ),
    }
    print(case.name, errors)
    assert max(errors.values()) < tolerance(case)


@golden_cases("b_null_text", where=is_long)
def test_golden_null_text_one_step_at_a_time(case: GoldenCase) -> None:
    want = case.settings
    model = case.model(steps_offset=want["steps_offset"])
    *_, last = ddim_inversion_steps(
        model, case.array("x0")[None], want["prompt"], steps=want["steps"]
    )
    inversion = last.inversion
    assert apart(inversion.noise[0], case.array("x_T")) < 1e-9
    nulls = dict(zip(want["null_indices"], case.array("null_embeddings"), strict=True))
    latents = dict(zip(want["reconstruction_indices"], case.array("reconstruction"), strict=True))
    compared = 0
    for index in nulls:
        if index - 1 not in nulls or index not in latents or index + 1 not in latents:
            continue
        step = null_text_step(
            model,
            latents[index][None],
            inversion.trajectory[want["steps"] - 1 - index][None],
            case.text(want["cond"]),
            nulls[index - 1][None],
            index=index,
            timestep=inversion.timesteps[index],
            learning_rate=1e-2,
            **knobs(case),
        )
        errors = apart(step.null[0], nulls[index]), apart(step.latents[0], latents[index + 1])
        losses = case.array("losses")[index]
        losses = losses[~losses.isnan()]
        print(case.name, index, errors)
        assert max(errors) < 1e-9
        assert torch.allclose(torch.tensor(step.losses).double(), losses, rtol=1e-4)
        compared += 1
    assert compared
