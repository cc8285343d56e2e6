"""Samplers of diffusers for models with a DDPM schedule: DPM-Solver++, UniPC, Euler.

Lu et al. 2022 (arXiv:2211.01095), Zhao et al. 2023 (arXiv:2302.04867), Karras et al. 2022
(arXiv:2206.00364, Euler steps). They get the model's own noise levels, spacing and prediction type.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.diffusion.ddpm import DDPMSchedule
from understudy.diffusion.guidance import Scales
from understudy.diffusion.sampler import Predictor, SampleStep, guided_output
from understudy.diffusion.text import Text
from understudy.errors import InputError


def solver(model: Predictor, name: str) -> Any:
    """diffusers' scheduler `name` for a model: "dpm++", "unipc" or "euler".

    Raises InputError for a model with another noise process than DDPM.
    """
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    schedule = model.schedule
    if not isinstance(schedule, DDPMSchedule):
        raise InputError(
            f"--sampler {name} is for Stable Diffusion 1.x, 2.x and XL. A flow model is sampled "
            "with Euler steps already: leave the option out."
        )
    alphas = schedule.alphas_cumprod.double()
    betas = 1 - alphas / torch.cat([alphas.new_ones(1), alphas[:-1]])
    told: dict[str, Any] = {
        "num_train_timesteps": schedule.length,
        "trained_betas": betas.float().numpy(),
        "prediction_type": schedule.prediction,
        "timestep_spacing": schedule.timestep_spacing,
        "steps_offset": schedule.steps_offset,
    }
    kinds: dict[str, Any] = {
        "dpm++": DPMSolverMultistepScheduler,
        "unipc": UniPCMultistepScheduler,
        "euler": EulerDiscreteScheduler,
    }
    return kinds[name](**told)


@torch.no_grad()
def solver_steps(
    model: Predictor,
    noise: Float[Tensor, "b c h w"],
    text: Text,
    uncond: Text | None,
    *,
    name: str,
    steps: int,
    guidance: float | Scales,
    begin: Float[Tensor, "b c h w"] | None = None,
    first: int = 0,
) -> Iterator[SampleStep]:
    """Denoise by one of diffusers' samplers, one SampleStep at a time.

    begin, first: clean latents that the run begins with, noised to the level of step `first`; the
    steps before it are left out. None begins with the noise alone.
    """
    scheduler = solver(model, name)
    with warnings.catch_warnings():  # diffusers asks NumPy for a copy in the old way
        warnings.simplefilter("ignore", DeprecationWarning)
        scheduler.set_timesteps(steps, device=noise.device)
    times = scheduler.timesteps
    if begin is None:
        latents = noise * scheduler.init_noise_sigma
    else:
        latents = scheduler.add_noise(begin, noise, times[first : first + 1].expand(len(noise)))
    scheduler.set_begin_index(first)
    for index in range(first, len(times)):
        time = times[index]
        given = scheduler.scale_model_input(latents, time)
        output = guided_output(model, given, float(time), text, uncond, guidance)
        latents = scheduler.step(output.float(), time, latents.float(), return_dict=False)[0]
        yield SampleStep(index - first, len(times) - first, float(time), latents)
