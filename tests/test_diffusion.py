"""The sampler against the recorded runs, diffusers' schedulers and closed forms."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

from golden_model import GoldenCase, golden_cases, load_cases, rows_per_step
from understudy.attention.plan import AttentionPlan, CrossMix
from understudy.attention.site import AttentionSite
from understudy.diffusion.ddpm import DDPMSchedule
from understudy.diffusion.sampler import (
    advance,
    invert_steps,
    sample_steps,
)
from understudy.diffusion.text import Text
from understudy.diffusion.words import Alignment, align
from understudy.errors import InputError, ModelError


def apart(a, b):
    assert a.shape == b.shape
    return (a - b).abs().max().item()


@golden_cases("a_ddim")
def test_golden_ddim(case: GoldenCase) -> None:
    """Inversion, reconstruction without guidance and guided sampling, all recorded indices."""
    want, model = case.settings, case.model()
    steps, guidance = want["steps"], want["guidance"]
    text, uncond, x0 = case.text(want["cond"]), case.empty, case.array("x0")[None]
    assert want.get("timesteps") in (None, list(model.schedule.times(steps))[:-1])
    inverted = [x0] + [s.latents for s in invert_steps(model, x0, text, steps=steps)]
    x_t = inverted[-1]
    *_, rebuilt = sample_steps(model, x_t, text, steps=steps)
    guided = sample_steps(model, x_t, text, uncond, steps=steps, guidance=guidance)
    sampled = [x_t] + [step.latents for step in guided]
    stored = case.get("stored_indices", default=[])
    ours = {
        "inversion": [inverted[i] for i in stored],
        "cfg_sampling": [sampled[i] for i in stored],
        "reconstruction": [rebuilt.latents],
    }
    found = {name: torch.cat(all_) for name, all_ in ours.items() if all_ and case.has(name)}
    wanted = {name: case.array(name) for name in found}
    errors = [apart(ours.reshape(wanted[name].shape), wanted[name]) for name, ours in found.items()]
    assert max(errors) < 1e-9
    idle = model.schedule.steps_offset == 0  # inverting costs nothing from t = 0 to t = 0
    assert model.nfe == (2 + rows_per_step(guidance)) * steps - idle


class Photoswap:
    """Rows source-uncond, target-uncond, source-cond, target-cond, as the authors' code swaps."""

    def __init__(self, *, phi: bool, m: bool, mix: CrossMix | None) -> None:
        self.phi, self.m, self.mix = phi, m, mix
        self.asked = 0

    def plan(self, site: AttentionSite) -> AttentionPlan | None:
        self.asked += 1
        if site.kind == "cross":
            return None if self.mix is None else AttentionPlan(cross={3: self.mix})
        if self.phi:
            return AttentionPlan(output_from=(0, 0, 2, 2))
        return AttentionPlan.maps((0, 1, 2, 2)) if self.m and site.cells <= 1024 else None


def single_forwards() -> list[tuple[GoldenCase, str]]:
    cases = load_cases("c_single_forward", "c_photoswap")
    return [(case, mode) for case in cases for mode in case.settings.get("modes", ())]


def alignment(case: GoldenCase) -> Alignment:
    """Which source token each target token of the case's prompts takes attention from."""
    source, target = (case.model().tokenize(prompt) for prompt in case.settings["prompts"])
    rows = [tokens.ids[: tokens.length + 2] for tokens in (source, target)]
    return align(*rows, len(source.ids))


@pytest.mark.parametrize(
    ("case", "mode"),
    single_forwards() or [pytest.param(None, "", marks=pytest.mark.skip("no golden data"))],
)
def test_golden_single_forward(case: GoldenCase, mode: str) -> None:
    """One U-Net call with one swap at a time, through attention plans."""
    want = case.settings
    knobs = want["modes"][mode]
    step = knobs["controller_step"]
    steps = case.get("steps", default=50)
    phi = step <= int(knobs["phi"] * steps) and knobs["phi"] >= 0
    first, end = knobs["num_self_replace"]
    pairs = alignment(case)
    crossed = step < int(knobs["cross"] * (steps + 1))
    mix = CrossMix.aligned(2, pairs.mapper, pairs.alphas, dtype=torch.float64) if crossed else None
    control = Photoswap(phi=phi, m=first <= step < end, mix=mix)

    model = case.model()
    latents = case.array("/latents").repeat(2, 1, 1, 1)
    text = Text.cat([case.empty, case.empty, case.model().embed(want["prompts"])])
    with torch.no_grad():
        noise = model.predict(latents, want["timestep"], text, control)

    recorded = {
        (0, 2): "/eps_source_rows_0_2",
        (1, 3): f"/eps_target_rows_1_3/{knobs.get('identical_to', mode)}",
    }
    errors = [
        apart(noise[list(rows)], case.array(key)) for rows, key in recorded.items() if case.has(key)
    ]
    assert max(errors) < 1e-12
    assert control.asked == len(model.denoiser.sites)
    assert model.nfe == 4


# Without recorded data: diffusers' schedulers as the oracle, on the same made-up noise.


def schedule_of(config: dict) -> DDPMSchedule:
    ddim = DDIMScheduler(**config)
    offset, to_one = ddim.config.steps_offset, ddim.config.set_alpha_to_one
    return DDPMSchedule(ddim.alphas_cumprod, offset, to_one)


class Painter:
    """A stand-in for a model: its noise is a smooth function of latents and timestep."""

    def __init__(self, schedule: DDPMSchedule) -> None:
        self.schedule = schedule

    def predict(self, latents, time, text, control=None):
        return torch.sin(latents * 3 + time / 100)


CURVE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CONVENTIONS = [(0, False), (1, False), (0, True), (1, True)]


@pytest.mark.parametrize(("offset", "to_one"), CONVENTIONS)
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_denoising_equals_diffusers_ddim(offset: int, to_one: bool, steps: int) -> None:
    config = {**CURVE, "steps_offset": offset, "set_alpha_to_one": to_one, "clip_sample": False}
    oracle, schedule = DDIMScheduler(**config), schedule_of(config)
    oracle.set_timesteps(steps)
    oracle.alphas_cumprod = oracle.alphas_cumprod.double()
    oracle.final_alpha_cumprod = oracle.final_alpha_cumprod.double()
    assert tuple(oracle.timesteps.tolist()) == schedule.times(steps)[:-1]
    x = ours = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    model = Painter(schedule)
    for timestep in oracle.timesteps:
        noise = model.predict(x, int(timestep), None)
        x = oracle.step(noise, timestep, x).prev_sample
    for start, end in pairwise(schedule.times(steps)):
        ours = advance(schedule, ours, model.predict(ours, start, None), start, end)
    assert apart(ours, x) < 1e-9


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_fresh_noise_enters_as_in_diffusers(eta: float) -> None:
    config = {**CURVE, "steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False}
    oracle, schedule = DDIMScheduler(**config), schedule_of(config)
    oracle.set_timesteps(10)
    oracle.alphas_cumprod = oracle.alphas_cumprod.double()
    oracle.final_alpha_cumprod = oracle.final_alpha_cumprod.double()
    model = Painter(schedule)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    for t, end in pairwise(schedule.times(10)):
        noise, fresh = model.predict(x, t, None), torch.randn(2, 4, 8, 8).double()
        theirs = oracle.step(noise, t, x, eta=eta, variance_noise=fresh).prev_sample
        x = advance(schedule, x, noise, t, end, eta=eta, fresh=fresh)
        assert apart(x, theirs) < 1e-9


@pytest.mark.parametrize(("offset", "to_one"), CONVENTIONS[:2])
@pytest.mark.parametrize("steps", [7, 50])
def test_inverting_equals_diffusers_inverse_ddim(offset: int, to_one: bool, steps: int) -> None:
    config = {**CURVE, "steps_offset": offset, "set_alpha_to_one": to_one, "clip_sample": False}
    oracle, schedule = DDIMInverseScheduler(**config), schedule_of(config)
    oracle.set_timesteps(steps)
    oracle.alphas_cumprod = oracle.alphas_cumprod.double()
    oracle.initial_alpha_cumprod = oracle.initial_alpha_cumprod.double()
    x = ours = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    model = Painter(schedule)
    for timestep in oracle.timesteps:
        noise = model.predict(x, int(timestep), None)
        x = oracle.step(noise, timestep, x).prev_sample
    for start, end in pairwise(reversed(schedule.times(steps))):
        ours = advance(schedule, ours, model.predict(ours, end, None), start, end, at=end)
    assert apart(ours, x) < 1e-9


def test_a_step_and_its_reverse_cancel() -> None:
    schedule = schedule_of(CURVE)
    x, noise = torch.randn(2, 1, 4, 8, 8, dtype=torch.float64)
    there = advance(schedule, x, noise, 500, 200)
    assert apart(advance(schedule, there, noise, 200, 500), x) < 1e-12


def test_with_the_true_noise_one_step_finds_the_picture() -> None:
    schedule = DDPMSchedule(schedule_of(CURVE).alphas_cumprod, set_alpha_to_one=True)
    clean, noise = torch.randn(2, 1, 4, 8, 8, dtype=torch.float64)
    noised = schedule.noised(clean, noise, torch.tensor([700]))
    assert apart(advance(schedule, noised, noise, 700, -1), clean) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_steps_keep_the_dtype_and_count_in_at_least_float32(dtype: torch.dtype) -> None:
    schedule = schedule_of(CURVE)
    x, noise = torch.randn(2, 1, 4, 8, 8, dtype=torch.float64).to(dtype)
    exact = advance(schedule, x.double(), noise.double(), 800, 780)
    step = advance(schedule, x, noise, 800, 780)
    assert step.dtype == dtype
    rounding = torch.finfo(dtype).eps / 2 * exact.abs()
    assert ((step.double() - exact).abs() <= rounding + 4e-6).all()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_target_tells_clean_latents_and_noise(prediction: str) -> None:
    schedule = replace(schedule_of(CURVE), prediction=prediction)
    clean, noise = torch.randn(2, 3, 4, 8, 8, dtype=torch.float64)
    when = torch.tensor([0, 500, 999])
    noised = schedule.noised(clean, noise, when)
    output = schedule.target(clean, noise, when)
    found = schedule.denoised(noised, output, when)
    assert max(apart(found[0], clean), apart(found[1], noise)) < 1e-12
    one = schedule.denoised(noised[1:2], output[1:2], 500)
    assert max(apart(one[0], clean[1:2]), apart(one[1], noise[1:2])) < 1e-12
    oracle = DDIMScheduler(**CURVE)
    assert apart(noised, oracle.add_noise(clean, noise, when)) < 1e-6
    if prediction == "v_prediction":
        assert apart(output, oracle.get_velocity(clean, noise, when)) < 1e-6


def test_an_unknown_prediction_is_refused() -> None:
    with pytest.raises(ModelError, match="predicts 'noise'.*epsilon, v_prediction, sample"):
        DDPMSchedule(schedule_of(CURVE).alphas_cumprod, prediction="noise")


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_an_impossible_number_of_steps_is_refused(steps: int) -> None:
    with pytest.raises(InputError, match=f"--steps must be from 1 to 1000. Got {steps}"):
        schedule_of(CURVE).times(steps)


def test_steps_past_the_last_timestep_are_refused() -> None:
    with pytest.raises(InputError, match="past the model's last timestep"):
        schedule_of({**CURVE, "steps_offset": 1}).times(1000)
