"""The sampler: timesteps, the DDIM step in both directions, guidance, and the loop as a generator.

DDIM: Song et al. 2020, arXiv:2010.02502, equation 12, with the sigma of equation 16. Guidance: Ho &
Salimans 2022, arXiv:2207.12598. Timesteps are spaced as diffusers' DDIM spaces them. Knows models
through their protocol only; knows no prompts, and decodes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.attention.plan import AttentionControl
from understudy.errors import InputError
from understudy.models.interface import DiffusionModel, NoiseSchedule


@dataclass(frozen=True)
class SampleStep:
    """One finished denoising step.

    index counts from 0 to total - 1; timestep is the one just denoised; latents (b, c, h, w) are
    those after the step, so the last step's latents are the result.
    """

    index: int
    total: int
    timestep: int
    latents: Float[Tensor, "b c h w"]


def timesteps(schedule: NoiseSchedule, steps: int) -> list[int]:
    """The sampling timesteps, descending; inversion walks them the other way.

    Spacing (Lin et al. 2023, arXiv:2305.08891, table 2): "leading" is i * (T // steps) + offset,
    "trailing" is round(T - i * T / steps) - 1, "linspace" from T - 1 to 0. Raises InputError when
    the schedule has not that many timesteps.
    """
    if not 1 <= steps <= schedule.length:
        raise InputError(f"--steps must be from 1 to {schedule.length}. Got {steps}.")
    if schedule.timestep_spacing == "trailing":
        return [round(schedule.length - i * schedule.length / steps) - 1 for i in range(steps)]
    if schedule.timestep_spacing == "linspace":
        apart = (schedule.length - 1) / max(steps - 1, 1)
        return [round(i * apart) for i in range(steps)][::-1]
    ascending = [i * (schedule.length // steps) + schedule.steps_offset for i in range(steps)]
    if ascending[-1] >= schedule.length:
        raise InputError(
            f"--steps {steps} reaches past the model's last timestep ({schedule.length - 1}), "
            f"because its schedule starts at {schedule.steps_offset}. Ask for fewer steps."
        )
    return ascending[::-1]


def next_lower(schedule: NoiseSchedule, steps: int, timestep: int) -> int:
    """The noise level a denoising step ends on; below 0 it means the schedule's final alpha."""
    return timestep - schedule.length // steps


def ddim_step(
    schedule: NoiseSchedule,
    latents: Float[Tensor, "b c h w"],
    noise: Float[Tensor, "b c h w"],
    start: int,
    end: int,
    *,
    eta: float = 0.0,
    fresh: Float[Tensor, "b c h w"] | None = None,
) -> Float[Tensor, "b c h w"]:
    """Move latents from the noise level of timestep start to that of timestep end, either way.

    noise is the model's epsilon. Denoising at t goes from t to next_lower(t); inverting at t goes
    from next_lower(t) to t. When denoising, `fresh` standard normal noise may replace a share of
    what is there: eta 0 is DDIM, eta 1 ancestral sampling (DDPM's posterior). The arithmetic is
    done in the latents' dtype, float32 or finer; the coefficients are exact to double precision.
    """
    a, b = schedule.alpha(start), schedule.alpha(end)
    exact = torch.promote_types(latents.dtype, torch.float32)
    x, eps = latents.to(exact), noise.to(exact)
    clean = clean_latents(schedule, x, eps, start)
    if fresh is None or eta == 0:
        return (sqrt(b) * clean + sqrt(1 - b) * eps).to(latents.dtype)
    sigma = eta * sqrt((1 - b) / (1 - a) * (1 - a / b))
    moved = sqrt(b) * clean + sqrt(max(1 - b - sigma**2, 0.0)) * eps + sigma * fresh.to(exact)
    return moved.to(latents.dtype)


def clean_latents(
    schedule: NoiseSchedule,
    latents: Float[Tensor, "b c h w"],
    noise: Float[Tensor, "b c h w"],
    timestep: int,
) -> Float[Tensor, "b c h w"]:
    """x_0 as far as it can be told at a timestep (Song et al. 2020, equation 9)."""
    a = schedule.alpha(timestep)
    return (latents - sqrt(1 - a) * noise) / sqrt(a)


def guided(
    uncond: Float[Tensor, "b c h w"], cond: Float[Tensor, "b c h w"], guidance: float
) -> Float[Tensor, "b c h w"]:
    """Classifier-free guidance: eps_u + g * (eps_c - eps_u)."""
    return uncond + guidance * (cond - uncond)


def guided_noise(
    model: DiffusionModel,
    latents: Float[Tensor, "b c h w"],
    timestep: int,
    text: Float[Tensor, "b tokens width"],
    uncond: Float[Tensor, "b tokens width"] | None,
    guidance: float,
    control: AttentionControl | None = None,
) -> Float[Tensor, "b c h w"]:
    """The guided epsilon, from one model call of 2 b rows: first the b unconditional, then the b
    conditional ones. With guidance 1 or without uncond, b rows: the conditional ones alone."""
    if uncond is None or guidance == 1:
        return model.predict_noise(latents, timestep, text, control)
    both = torch.cat([uncond, text])
    noise = model.predict_noise(torch.cat([latents, latents]), timestep, both, control)
    eps_u, eps_c = noise.chunk(2)
    return guided(eps_u, eps_c, guidance)


@torch.no_grad()
def sample_steps(
    model: DiffusionModel,
    latents: Float[Tensor, "b c h w"],
    text: Float[Tensor, "b tokens width"],
    uncond: Float[Tensor, "b tokens width"] | None = None,
    *,
    steps: int,
    guidance: float = 1.0,
    control_at: Callable[[int], AttentionControl | None] = lambda index: None,
    eta: float = 0.0,
    temperature: float = 1.0,
    streams: Sequence[torch.Generator] = (),
) -> Iterator[SampleStep]:
    """Denoise latents from x_T to x_0, one SampleStep at a time.

    control_at(index) gives the attention control of step index, or None; its rows are those of
    `guided_noise`. With eta above 0 every step but the last draws fresh noise for each picture from
    its own stream (see `ddim_step`), times temperature: below 1 a picture is likelier and plainer.
    """
    for index, timestep in enumerate(timesteps(model.schedule, steps)):
        control = control_at(index)
        noise = guided_noise(model, latents, timestep, text, uncond, guidance, control)
        end = next_lower(model.schedule, steps, timestep)
        stirred = eta > 0 and index < steps - 1
        fresh = temperature * drawn(streams, latents.shape[1:], like=model) if stirred else None
        latents = ddim_step(model.schedule, latents, noise, timestep, end, eta=eta, fresh=fresh)
        yield SampleStep(index, steps, timestep, latents)


@torch.no_grad()
def invert_steps(
    model: DiffusionModel,
    latents: Float[Tensor, "b c h w"],
    text: Float[Tensor, "b tokens width"],
    *,
    steps: int,
) -> Iterator[SampleStep]:
    """Run DDIM backwards from x_0 to x_T, without guidance (Song et al. 2020, section 4.3).

    Each step's latents are the next noisier ones; the last step's are x_T.
    """
    for index, timestep in enumerate(reversed(timesteps(model.schedule, steps))):
        noise = model.predict_noise(latents, timestep, text)
        start = next_lower(model.schedule, steps, timestep)
        latents = ddim_step(model.schedule, latents, noise, start, timestep)
        yield SampleStep(index, steps, timestep, latents)


def noise_streams(seeds: Sequence[int]) -> list[torch.Generator]:
    """A source of noise for each picture, on the CPU, so that a batch's size changes nothing."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def drawn(
    streams: Sequence[torch.Generator], shape: Sequence[int], *, like: DiffusionModel
) -> Float[Tensor, "b c h w"]:
    """The next standard normal latents of each stream; shape is (c, h, w).

    Drawn on the CPU in float32, so the same seed gives the same noise on any device, in any batch
    and at any precision. Returned on the model's device, float32 or the model's dtype where that is
    finer.
    """
    rows = [torch.randn(tuple(shape), generator=stream) for stream in streams]
    return torch.stack(rows).to(like.device, torch.promote_types(like.dtype, torch.float32))


def starting_noise(
    seeds: Sequence[int], shape: tuple[int, int, int], *, like: DiffusionModel
) -> Float[Tensor, "b c h w"]:
    """The first noise of each seed's stream: where its picture starts from."""
    return drawn(noise_streams(seeds), shape, like=like)
