"""The rectified-flow schedule against its formulas, diffusers' scheduler and a known field."""

from __future__ import annotations

from itertools import pairwise
from math import exp

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from understudy.diffusion.ddpm import DDPMSchedule
from understudy.diffusion.flow import DynamicShift, FlowSchedule
from understudy.diffusion.sampler import advance, invert_steps, sample_steps
from understudy.diffusion.schedule import Schedule, moves
from understudy.diffusion.text import Text
from understudy.errors import InputError

FLUX = DynamicShift(base_shift=0.5, max_shift=1.15)


def apart(a, b):
    assert a.shape == b.shape
    return (a - b).abs().max().item()


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 7, 28])
@pytest.mark.parametrize("grid", ["trained", "uniform"])
def test_static_shifts_are_those_of_diffusers(shift: float, steps: int, grid: str) -> None:
    oracle = FlowMatchEulerDiscreteScheduler(shift=shift)
    given = torch.linspace(1, 1 / steps, steps).tolist() if grid == "uniform" else None
    oracle.set_timesteps(steps, sigmas=given)
    schedule = FlowSchedule(shift, grid)  # type: ignore
    ours = torch.tensor(schedule.times(steps))
    assert apart(ours, oracle.sigmas) < 1e-6
    assert ours[0] == 1 and ours[-1] == 0


@pytest.mark.parametrize(("kind", "terminal"), [("exponential", None), ("linear", 0.02)])
@pytest.mark.parametrize("side", [32, 64, 128])
def test_dynamic_shifts_are_those_of_diffusers(kind, terminal: float | None, side: int) -> None:
    oracle = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, time_shift_type=kind, shift_terminal=terminal
    )
    tokens = side * side // 4
    mu = 0.5 + (1.15 - 0.5) / (4096 - 256) * (tokens - 256)
    oracle.set_timesteps(20, sigmas=torch.linspace(1, 1 / 20, 20).tolist(), mu=mu)
    shift = DynamicShift(kind=kind)
    schedule = FlowSchedule(shift, cells_per_token=4, terminal=terminal)
    assert apart(torch.tensor(schedule.times(20, side * side)), oracle.sigmas) < 1e-6


def test_a_dynamic_shift_wants_to_know_the_resolution() -> None:
    with pytest.raises(ValueError, match="resolution"):
        FlowSchedule(FLUX).times(4)
    assert FLUX.at(256) == pytest.approx(exp(0.5)) and FLUX.at(4096) == pytest.approx(exp(1.15))


@pytest.mark.parametrize("steps", [0, 1001])
def test_an_impossible_number_of_steps_is_refused(steps: int) -> None:
    with pytest.raises(InputError, match=f"--steps must be from 1 to 1000. Got {steps}"):
        FlowSchedule().times(steps)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_steps_are_those_of_diffusers(eta: float) -> None:
    oracle = FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=eta > 0)
    oracle.set_timesteps(10)
    schedule = FlowSchedule(3.0, "trained")
    x = torch.randn(2, 4, 8, 6, generator=torch.Generator().manual_seed(0))
    for start, end, t in zip(oracle.sigmas[:-1], oracle.sigmas[1:], oracle.timesteps, strict=True):
        output = torch.sin(3 * x)
        torch.manual_seed(1)  # diffusers draws its fresh noise from the global generator
        theirs = oracle.step(output, t, x).prev_sample
        torch.manual_seed(1)
        fresh = torch.randn_like(x)
        x = advance(schedule, x, output, float(start), float(end), eta=eta, fresh=fresh)
        assert apart(x, theirs) < 2e-6


def test_target_and_estimates_are_the_formulas() -> None:
    schedule = FlowSchedule()
    clean, noise = torch.randn(2, 3, 4, 8, 6, dtype=torch.float64)
    sigma = torch.tensor([0.0, 0.25, 1.0])
    rows = sigma.double()[:, None, None, None]
    noised, v = schedule.noised(clean, noise, sigma), schedule.target(clean, noise, sigma)
    assert apart(noised, (1 - rows) * clean + rows * noise) < 1e-15
    assert apart(v, noise - clean) == 0
    estimates = schedule.denoised(noised, v, sigma)
    assert apart(estimates[0], clean) < 1e-12  # at sigma = 1 too, where the signal is 0
    assert apart(estimates[1], noise) < 1e-12


def test_training_times_are_shifted_logit_normal() -> None:
    draws = torch.Generator().manual_seed(0)
    plain = torch.randn(4000, generator=draws, dtype=torch.float64).sigmoid()
    draws = torch.Generator().manual_seed(0)
    found = FlowSchedule(FLUX, cells_per_token=4).draw_times(4000, draws, 64 * 64)
    shift = FLUX.at(1024)
    assert torch.allclose(found.double(), shift * plain / (1 + (shift - 1) * plain), atol=1e-6)
    assert FlowSchedule().even_times(4).tolist() == [0.125, 0.375, 0.625, 0.875]


def test_min_snr_weighs_the_error_of_the_clean_picture() -> None:
    schedule, gamma = FlowSchedule(), 5.0
    clean, noise, output = torch.randn(3, 3, 4, 8, 8, dtype=torch.float64)
    sigma = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    noised = schedule.noised(clean, noise, sigma)
    guess, _ = schedule.denoised(noised, output, sigma)
    snr = ((1 - sigma) / sigma) ** 2
    expected = snr.clamp(max=gamma) * (guess - clean).square().flatten(1).mean(1)
    error = (output - schedule.target(clean, noise, sigma)).square().flatten(1).mean(1)
    torch.testing.assert_close(
        schedule.min_snr(sigma, gamma).double() * error, expected, rtol=1e-6, atol=1e-9
    )


# One loop for both schedules: a model whose data are Gaussian, so that its field is known.


class GaussianModel:
    """The exact network for data N(mean, spread^2), on any schedule."""

    device, dtype = torch.device("cpu"), torch.float64
    mean, spread = 0.7, 0.4

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.nfe = schedule, 0

    def predict(self, latents, time, text, control=None):
        self.nfe += len(latents)
        a, s = self.schedule.signal(time), self.schedule.noise(time)
        gain = a * self.spread**2 / (a**2 * self.spread**2 + s**2)
        clean = self.mean + gain * (latents - a * self.mean)
        noise = s / (a**2 * self.spread**2 + s**2) * (latents - a * self.mean)
        return self.schedule.target(clean, noise, time)

    def flowed(self, latents, start: float, end: float):
        """Where the exact ODE carries latents: it keeps the standardised value."""
        a, s = self.schedule.signal(start), self.schedule.noise(start)
        b, r = self.schedule.signal(end), self.schedule.noise(end)
        standard = (latents - a * self.mean) / (a**2 * self.spread**2 + s**2) ** 0.5
        return b * self.mean + standard * (b**2 * self.spread**2 + r**2) ** 0.5


def ddpm(prediction: str) -> DDPMSchedule:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = (1 - betas).cumprod(0).float()
    return DDPMSchedule(alphas, steps_offset=1, prediction=prediction)


SCHEDULES = {
    "epsilon": ddpm("epsilon"),
    "v": ddpm("v_prediction"),
    "sample": ddpm("sample"),
    "flow": FlowSchedule(),
    "SD3": FlowSchedule(3.0, "trained"),
    "FLUX": FlowSchedule(FLUX, cells_per_token=4),
}
each_schedule = pytest.mark.parametrize("name", SCHEDULES)


@each_schedule
def test_sampling_converges_to_the_exact_flow(name: str) -> None:
    model = GaussianModel(SCHEDULES[name])
    noise = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    text, errors = Text(torch.zeros(2, 1, 1)), list[float]()
    for steps in (20, 80, 320):
        times = model.schedule.times(steps, 32 * 32)
        *_, last = sample_steps(model, noise, text, steps=steps)
        errors.append(apart(last.latents, model.flowed(noise, times[0], times[-1])))
    assert errors[2] < 0.4 * errors[1] < 0.16 * errors[0]  # first order in the step
    assert errors[2] < 2e-2 and model.nfe == 2 * (20 + 80 + 320)


@each_schedule
def test_inverting_converges_to_the_exact_flow_and_comes_back(name: str) -> None:
    model = GaussianModel(SCHEDULES[name])
    drawn = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    photo, text, errors = model.mean + model.spread * drawn, Text(torch.zeros(2, 1, 1)), []
    for steps in (80, 320):
        times = model.schedule.times(steps, 32 * 32)
        *_, inverted = invert_steps(model, photo, text, steps=steps)
        *_, back = sample_steps(model, inverted.latents, text, steps=steps)
        exact = model.flowed(photo, times[-1], times[0])
        errors.append((apart(inverted.latents, exact), apart(back.latents, photo)))
    assert errors[1][0] < 0.4 * errors[0][0] and errors[1][1] < 0.4 * errors[0][1]
    assert max(errors[1]) < 4e-2


@each_schedule
def test_one_step_and_its_reverse_cancel_for_one_output(name: str) -> None:
    schedule = SCHEDULES[name]
    times = schedule.times(10, 32 * 32)
    x, output = torch.randn(2, 1, 4, 8, 8, dtype=torch.float64)
    for start, end in list(pairwise(times))[2:5]:
        clean, noise = schedule.denoised(x, output, start)
        below = advance(schedule, x, output, start, end)
        assert apart(below, schedule.signal(end) * clean + schedule.noise(end) * noise) < 1e-12
        assert moves(schedule, start, end) and not moves(schedule, start, start)


@each_schedule
def test_fresh_noise_keeps_the_noise_level(name: str) -> None:
    """A step from exactly noised data, with fresh noise, has the variance of its end."""
    schedule = SCHEDULES[name]
    times = schedule.times(10, 32 * 32)
    draws = torch.Generator().manual_seed(0)
    clean, noise, fresh = torch.randn(3, 1, 4, 128, 128, generator=draws).double()
    for eta in (0.0, 0.5, 1.0):
        x, output = (
            schedule.noised(clean, noise, times[3]),
            schedule.target(clean, noise, times[3]),
        )
        moved = advance(schedule, x, output, times[3], times[4], eta=eta, fresh=fresh)
        left = moved - schedule.signal(times[4]) * clean
        assert left.std().item() == pytest.approx(schedule.noise(times[4]), rel=0.02)


def test_identities_tell_schedules_apart() -> None:
    assert len({schedule.identity for schedule in SCHEDULES.values()}) == len(SCHEDULES)
    assert ddpm("epsilon").identity == SCHEDULES["epsilon"].identity
