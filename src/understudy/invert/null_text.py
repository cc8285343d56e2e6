"""Null-text inversion: the unconditional embedding is tuned until guided sampling gives the photo.

Mokady et al. 2022, arXiv:2211.09794, Algorithm 1, with the learning rate and early stop of the
authors' code. The network is never touched: gradients go to the embedding alone, the conditional
noise of a step is computed once, and a step that moves nothing is not optimised.

The optimisation is chaotic: a fresh Adam per timestep moves like the sign of the gradient, so two
exact implementations part by rounding alone over 50 steps. Single steps can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.diffusion.sampler import ddim_step, guided, next_lower
from understudy.invert.inversion import Inversion, InvertStep, ddim_inversion_steps, moves
from understudy.invert.source import NOTHING, Parts, SourceFeatures, keeping, nothing
from understudy.models.interface import DiffusionModel


@dataclass(frozen=True)
class NullStep:
    """One timestep of the optimisation.

    null: the embedding after it; latents: the guided sample after it; losses: before each
    optimiser step (one is measured, and no step taken, where nothing could change); uncond_noise:
    the network's for that embedding, None where the step moves nothing.
    """

    null: Float[Tensor, "1 tokens width"]
    latents: Float[Tensor, "1 c h w"]
    losses: tuple[float, ...]
    uncond_noise: Float[Tensor, "1 c h w"] | None = None


@torch.no_grad()
def null_text_steps(
    model: DiffusionModel,
    latents: Float[Tensor, "1 c h w"],
    prompt: str,
    *,
    steps: int = 50,
    guidance: float = 7.5,
    inner_steps: int = 10,
    epsilon: float = 1e-5,
    learning_rate: float = 1e-2,
    features: SourceFeatures | None = None,
    parts: Callable[[int], Parts] = nothing,
) -> Iterator[InvertStep]:
    """Invert by DDIM, then tune one null embedding a timestep, each starting from the last.

    Args:
        latents: the photo's.
        inner_steps: optimiser steps a timestep, at most.
        epsilon: a timestep ends early below the loss epsilon + 2e-5 * its index.
        learning_rate: of the first timestep; it falls by 1 % of this each timestep.
        features, parts: where to keep what edits will read in each sampling step, and what that
            is; the rows are computed here anyway.
    """
    inversion: Inversion | None = None
    if features is not None:
        features.forget()
    for step in ddim_inversion_steps(model, latents, prompt, steps=steps):
        inversion = step.inversion
        yield replace(step, total=2 * steps, inversion=None)
    assert inversion is not None
    trajectory, text, z = inversion.trajectory, model.embed([prompt]), inversion.noise
    null, nulls, replay, first = at_least_float32(model.embed([""])), list[Tensor](), [z], None
    for index, timestep in enumerate(inversion.timesteps):
        step = null_text_step(
            model,
            z,
            trajectory[steps - 1 - index : steps - index],
            text,
            null,
            index=index,
            steps=steps,
            timestep=timestep,
            guidance=guidance,
            inner_steps=inner_steps,
            epsilon=epsilon,
            learning_rate=learning_rate,
            features=features,
            parts=parts(index),
        )
        null, z = step.null, step.latents
        first = step.uncond_noise if index == 0 else first
        nulls.append(null)
        replay.append(z)
        done = None
        if index == steps - 1:
            done = _finished(inversion, guidance, replay, nulls, first)
            if features is not None:
                features.adopt(done)
        loss, inner = step.losses[-1], len(step.losses)
        yield InvertStep(steps + index, 2 * steps, timestep, z, loss, inner, done)


def _finished(
    inversion: Inversion,
    guidance: float,
    replay: list[Tensor],
    nulls: list[Tensor],
    first: Tensor | None,
) -> Inversion:
    return replace(
        inversion,
        method="null-text",
        guidance=guidance,
        replay=torch.cat(replay),
        null_embeddings=torch.cat(nulls),
        first_noise=first,
    )


@torch.no_grad()
def null_text_step(
    model: DiffusionModel,
    latents: Float[Tensor, "1 c h w"],
    wanted: Float[Tensor, "1 c h w"],
    text: Float[Tensor, "1 tokens width"],
    null: Float[Tensor, "1 tokens width"],
    *,
    index: int,
    steps: int,
    timestep: int,
    guidance: float,
    inner_steps: int,
    epsilon: float,
    learning_rate: float,
    features: SourceFeatures | None = None,
    parts: Parts = NOTHING,
) -> NullStep:
    """Tune the null embedding of one timestep so that a guided step from latents gives wanted.

    The test for the early stop comes after the optimiser's step, as published.
    """
    end = next_lower(model.schedule, steps, timestep)
    if not moves(model.schedule, timestep, end):
        return NullStep(null, latents, (F.mse_loss(latents, wanted).item(),))
    as_cond = keeping(features, index, parts, cond=0)
    eps_c = model.predict_noise(latents, timestep, text, as_cond)

    def step_with(eps_u: Tensor) -> Tensor:
        return ddim_step(model.schedule, latents, guided(eps_u, eps_c, guidance), timestep, end)

    # Past 100 timesteps the published rate would turn negative: then count as if there were 50.
    place = index if steps <= 100 else index * 50 / steps
    null = null.clone().requires_grad_()
    adam = torch.optim.Adam([null], lr=learning_rate * (1 - place / 100))
    losses = list[float]()
    for _ in range(inner_steps if guidance != 1 else 0):
        with torch.enable_grad():
            after = step_with(model.predict_noise(latents, timestep, null))
            loss = F.mse_loss(at_least_float32(after), at_least_float32(wanted))
            (null.grad,) = torch.autograd.grad(loss, [null])
        adam.step()
        losses.append(loss.item())
        if losses[-1] < epsilon + place * 2e-5:
            break
    null = null.detach()
    eps_u = model.predict_noise(latents, timestep, null, keeping(features, index, parts, uncond=0))
    if features is not None:
        features.close_step(index, parts)
    after = step_with(eps_u)
    return NullStep(null, after, tuple(losses) or (F.mse_loss(after, wanted).item(),), eps_u)


def at_least_float32(values: Tensor) -> Tensor:
    """The same values, float32 where they were coarser: embeddings and losses need it."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
