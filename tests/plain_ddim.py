"""DDIM the plain way, from the published formulas: the reference for the package's schedules.

Song et al. 2020, arXiv:2010.02502. Everything is written in terms of the noise, whatever the
network predicts, and in terms of integer timesteps. It reads only the numbers of a DDPMSchedule.
"""

from __future__ import annotations

from math import sqrt

import torch


def alpha(schedule, timestep: int) -> float:
    if timestep >= 0:
        return float(schedule.alphas_cumprod[timestep])
    return 1.0 if schedule.set_alpha_to_one else float(schedule.alphas_cumprod[0])


def timesteps(schedule, steps: int) -> list[int]:
    """The sampling timesteps, descending, spaced as diffusers' "leading"."""
    stride = len(schedule.alphas_cumprod) // steps
    return [i * stride + schedule.steps_offset for i in reversed(range(steps))]


def next_lower(schedule, steps: int, timestep: int) -> int:
    return timestep - len(schedule.alphas_cumprod) // steps


def times(schedule, steps: int) -> tuple[int, ...]:
    """What an inversion stores: the timesteps, and where the last step ends."""
    walked = timesteps(schedule, steps)
    return (*walked, next_lower(schedule, steps, walked[-1]))


def predict_noise(model, latents, timestep, text, control=None):
    """epsilon, whatever the network predicts."""
    output = model.predict(latents, timestep, text, control)
    if model.schedule.prediction == "epsilon":
        return output
    assert model.schedule.prediction == "v_prediction"
    return noise_from_velocity(model.schedule, output, latents, timestep)


def noise_from_velocity(schedule, velocity, latents, timestep):
    """eps = sqrt(a_t) v + sqrt(1 - a_t) x_t (Salimans & Ho 2022, arXiv:2202.00512)."""
    a = schedule.alphas_cumprod.double()[torch.as_tensor(timestep)].reshape(-1, 1, 1, 1)
    return (a.sqrt() * velocity + (1 - a).sqrt() * latents).to(latents.dtype)


def ddim_step(schedule, latents, noise, start: int, end: int):
    """Equation 12 with sigma 0, either way."""
    a, b = alpha(schedule, start), alpha(schedule, end)
    clean = (latents - sqrt(1 - a) * noise) / sqrt(a)
    return sqrt(b) * clean + sqrt(1 - b) * noise
