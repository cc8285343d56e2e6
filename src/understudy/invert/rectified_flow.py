"""Inversion of rectified flows: one inverter with a choice of solver, RF-Inversion, and direct.

All walk the ODE from the photo's latents to noise, with the source prompt and without guidance
(RF-Inversion with the empty prompt), and store the times they walked. Direct inversion keeps the
trajectory; the others walk back once and keep what that gives, which is the source's path in every
edit. Solvers and their sources: diffusion/solvers.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.diffusion.flow import FlowSchedule
from understudy.diffusion.sampler import starting_noise, times_of
from understudy.diffusion.solvers import (
    SOLVERS,
    SolverStep,
    Velocity,
    solver_steps,
    towards_noise_steps,
    towards_photo_steps,
)
from understudy.errors import InputError
from understudy.invert.inversion import Inversion, InvertStep, digest
from understudy.models.interface import DiffusionModel

FLOW_METHODS = ("direct", *SOLVERS, "rf-inversion")


@dataclass(frozen=True)
class RFInversion:
    """The numbers of RF-Inversion (Rout et al. 2024): see `towards_noise_steps` and back.

    seed: of the Gaussian noise towards which the inversion is controlled.
    """

    gamma: float = 0.5
    eta: float = 0.9
    stop: float = 0.25
    seed: int = 0


def check_method(model: DiffusionModel, method: str) -> None:
    """Refuse an inversion method that the model's kind does not have, naming one that it has."""
    flow = isinstance(model.schedule, FlowSchedule)
    if flow and method not in FLOW_METHODS:
        near = {"ddim": "euler"}.get(method, "direct")
        raise InputError(
            f"the inversion method {method} is for diffusion models; {model.name} is a flow model. "
            f"Use {near}. It takes: {', '.join(FLOW_METHODS)}."
        )
    if not flow and method in FLOW_METHODS and method != "direct":
        raise InputError(
            f"the inversion method {method} is for flow models; {model.name} is a diffusion "
            "model. Use ddim. It takes: null-text, ddim, negative-prompt, direct."
        )


@torch.no_grad()
def flow_inversion_steps(
    model: DiffusionModel,
    latents: Float[Tensor, "1 c h w"],
    prompt: str,
    *,
    method: str = "direct",
    steps: int = 50,
    iterations: int = 30,
    tolerance: float = 1e-6,
    controlled: RFInversion = RFInversion(),  # noqa: B008
) -> Iterator[InvertStep]:
    """Invert latents of a photo, then walk back; the last step carries the inversion.

    Args:
        method: one of FLOW_METHODS. "direct" is Euler's trajectory, and does not walk back.
        iterations, tolerance: of the implicit solver; an InvertStep's loss is its residual.
        controlled: of RF-Inversion.
    """
    check_method(model, method)
    times = times_of(model, steps, latents)
    # The inversion walks the sampler's own times, so that both discretise the same path.
    up, velocity = times[::-1], velocity_of(model, prompt)
    total = steps if method == "direct" else 2 * steps
    if method == "rf-inversion":
        shape = (latents.shape[1], latents.shape[2], latents.shape[3])
        noise = starting_noise([controlled.seed], shape, like=model)
        # RF-Inversion walks up with the empty prompt, as published: the target prompt
        # then has nothing to undo.
        there = towards_noise_steps(
            velocity_of(model, ""), latents, noise, up, gamma=controlled.gamma
        )
    else:
        solver = "euler" if method == "direct" else method
        there = solver_steps(
            velocity, latents, up, solver, tolerance=tolerance, iterations=iterations
        )
    walked = [latents]
    for step in there:
        walked.append(step.latents)
        made = None
        if method == "direct" and step.index == steps - 1:
            made = _inversion(model, method, prompt, times, walked)
        yield InvertStep(
            step.index, total, step.end, step.latents, loss=step.residual, inversion=made
        )
    if method == "direct":
        return
    # The walk back does not return exactly. Its latents, not those of the way up, are what the
    # model draws from this noise: they are the source's path.
    back = [walked[-1]]
    for step in _back(method, velocity, latents, walked[-1], times, controlled):
        back.append(step.latents)
        made = None
        if step.index == steps - 1:
            made = _inversion(model, method, prompt, times, walked, torch.cat(back))
        yield InvertStep(steps + step.index, total, step.end, step.latents, inversion=made)


def _back(
    method: str,
    velocity: Velocity,
    photo: Tensor,
    noise: Tensor,
    times: tuple[float, ...],
    controlled: RFInversion,
) -> Iterator[SolverStep]:
    """From the noise back to the photo, as the method samples."""
    if method == "rf-inversion":
        return towards_photo_steps(
            velocity, noise, photo, times, eta=controlled.eta, stop=controlled.stop
        )
    return solver_steps(velocity, noise, times, SOLVERS[method])


def velocity_of(model: DiffusionModel, prompt: str) -> Velocity:
    """The model's velocity for a prompt, without guidance."""
    text = model.embed([prompt])

    def velocity(latents: Tensor, time: float) -> Tensor:
        return model.predict(latents, time, text.expand(len(latents)))

    return velocity


def _inversion(
    model: DiffusionModel,
    method: str,
    prompt: str,
    times: tuple[float, ...],
    walked: list[Tensor],
    replay: Tensor | None = None,
) -> Inversion:
    return Inversion(
        method=method,
        prompt=prompt,
        model=model.name,
        fingerprint=model.fingerprint,
        guidance=1.0,
        times=times,
        picture=digest(walked[0]),
        trajectory=torch.cat(walked),
        replay=replay,
        # Direct inversion knows the path, so targets move relative to it and equal velocities keep
        # the photo exactly.
        paired=method == "direct",
    )
