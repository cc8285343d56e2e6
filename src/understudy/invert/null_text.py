"""Null-text inversion: the unconditional embedding is tuned until guided sampling gives the photo.

Mokady et al. 2022, arXiv:2211.09794, Algorithm 1, with the learning rate and early stop of the
authors' code. The network is never touched: gradients go to the embedding alone, the conditional
output of a step is computed once, and a step that moves nothing is not optimised.

The optimisation is chaotic: a fresh Adam per timestep moves like the sign of the gradient, so two
exact implementations part by rounding alone over 50 steps. Single steps can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.device_copies import Reading, reading_delay
from understudy.diffusion.sampler import advance, guided
from understudy.diffusion.schedule import moves
from understudy.diffusion.text import Text
from understudy.invert.inversion import Inversion, InvertStep, ddim_inversion_steps
from understudy.invert.keeping import keeping, nothing
from understudy.invert.source import NOTHING, Parts, SourceFeatures
from understudy.models.interface import DiffusionModel
from understudy.settings import InvertSettings


class Moment(NamedTuple):
    """A step of the sampling run: its number from 0, and the times where it starts and ends."""

    number: int
    start: float
    end: float


@dataclass(frozen=True)
class NullStep:
    """One timestep of the optimisation.

    null: the embedding after it; latents: the guided sample after it; losses: before each
    optimiser step (one is measured, and no step taken, where nothing could change); uncond: the
    network's output for that embedding, None where the step moves nothing.
    """

    null: Text
    latents: Float[Tensor, "1 c h w"]
    losses: tuple[float, ...]
    uncond: Float[Tensor, "1 c h w"] | None = None


@torch.no_grad()
def null_text_steps(
    model: DiffusionModel,
    latents: Float[Tensor, "1 c h w"],
    prompt: str,
    settings: InvertSettings | None = None,
    *,
    features: SourceFeatures | None = None,
    parts: Callable[[int], Parts] = nothing,
) -> Iterator[InvertStep]:
    """Invert by DDIM, then tune one null embedding per timestep, each starting from the last.

    The first starts from the negative prompt's embedding, the empty prompt's as published.

    Args:
        latents: the photo's.
        settings: at most `inner_steps` optimiser steps per timestep; a timestep ends early below
            the loss epsilon + 2e-5 * its index; `learning_rate` is that of the first timestep and
            falls by 1 % of this each timestep.
        features, parts: where to keep what edits read in each sampling step, and what that is.
    """
    settings = settings or InvertSettings()
    steps = settings.steps
    inversion: Inversion | None = None
    if features is not None:
        features.forget()
    for step in ddim_inversion_steps(model, latents, prompt, steps=steps):
        inversion = step.inversion
        yield replace(step, total=2 * steps, inversion=None)
    assert inversion is not None
    # Algorithm 1: DDIM inversion with guidance 1 gives the pivot trajectory z*_T ... z*_0.
    trajectory, text, z = inversion.trajectory, model.embed([prompt]), inversion.noise
    null, nulls, replay, first = _precise(model.embed([settings.negative])), list[Text](), [z], None
    for index, (start, end) in enumerate(pairwise(inversion.times)):
        step = null_text_step(
            model,
            z,
            trajectory[steps - 1 - index : steps - index],
            text,
            null,
            Moment(index, start, end),
            settings,
            features=features,
            parts=parts(index),
        )
        # The next timestep starts from this embedding, and from the latents that it really reached
        # (z-bar), not from the pivot: errors are corrected as they arise.
        null, z = step.null, step.latents
        # Every edit starts from z_T, so this output can be shared by all of them.
        first = step.uncond if index == 0 else first
        nulls.append(null)
        replay.append(z)
        done = None
        if index == steps - 1:
            done = _finished(inversion, settings, replay, nulls, first)
            if features is not None:
                features.adopt(done)
        loss, inner = step.losses[-1], len(step.losses)
        yield InvertStep(steps + index, 2 * steps, start, z, loss, inner, done)


def _finished(
    inversion: Inversion,
    settings: InvertSettings,
    replay: list[Tensor],
    nulls: list[Text],
    first: Tensor | None,
) -> Inversion:
    return replace(
        inversion,
        method="null-text",
        guidance=settings.guidance,
        negative=settings.negative,
        replay=torch.cat(replay),
        null_embeddings=Text.cat(nulls),
        first_output=first,
    )


@torch.no_grad()
def null_text_step(
    model: DiffusionModel,
    latents: Float[Tensor, "1 c h w"],
    wanted: Float[Tensor, "1 c h w"],
    text: Text,
    null: Text,
    moment: Moment,
    settings: InvertSettings,
    *,
    features: SourceFeatures | None = None,
    parts: Parts = NOTHING,
) -> NullStep:
    """Tune the null embedding of one timestep so that a guided step from latents gives wanted.

    The test for the early stop comes after the optimiser's step, as published. On a GPU the loss is
    read one optimiser step later, while the next is being computed, and that next step is undone.
    """
    index, start, end = moment
    guidance = settings.guidance
    # Stable Diffusion's last step can lie between equal noise levels: no embedding could change its
    # result.
    if not moves(model.schedule, start, end):
        return NullStep(null, latents, (F.mse_loss(latents, wanted).item(),))
    # The conditional output does not depend on the null embedding: computed once per timestep.
    cond = model.predict(latents, start, text, keeping(features, index, parts, cond=0))

    def step_with(uncond: Tensor) -> Tensor:
        return advance(model.schedule, latents, guided(uncond, cond, guidance), start, end)

    # Past 100 timesteps the published rate would turn negative: then count as if there were 50.
    place = index if settings.steps <= 100 else index * 50 / settings.steps

    def missed(null: Text) -> Tensor:
        after = step_with(model.predict(latents, start, null))
        return F.mse_loss(at_least_float32(after), at_least_float32(wanted))

    null, readings = tuned(
        null,
        missed,
        rate=settings.learning_rate * (1 - place / 100),
        most=settings.inner_steps if guidance != 1 else 0,
        enough=settings.epsilon + place * 2e-5,
        delay=reading_delay(latents.device),
    )
    # The last pass is needed for the step in any case, and its features are those of the final
    # embedding.
    uncond = model.predict(latents, start, null, keeping(features, index, parts, uncond=0))
    if features is not None:
        features.close_step(index, parts)
    after = step_with(uncond)
    # Read when the last pass has been launched: until then the device would have nothing to do.
    losses = tuple(loss.value for loss in readings) or (F.mse_loss(after, wanted).item(),)
    return NullStep(null, after, losses, uncond)


def tuned(
    null: Text,
    missed: Callable[[Text], Tensor],
    *,
    rate: float,
    most: int,
    enough: float,
    delay: int = 0,
) -> tuple[Text, list[Reading]]:
    """Adam on the embedding, at most `most` steps, until `missed` falls below `enough`.

    Returns the embedding and the loss before each step. The loss of a step is looked at `delay`
    steps later; the steps taken meanwhile are undone.
    """
    # A fresh Adam for each timestep, as published: moments of the last timestep do not carry over.
    leaves = [values.clone().requires_grad_() for values in null.trainable]
    null = null.with_trainable(leaves)
    adam = torch.optim.Adam(leaves, lr=rate)
    losses, before = list[Reading](), list[list[Tensor]]()
    for done in range(1, most + 1):
        with torch.enable_grad():
            loss = missed(null)
            adam.zero_grad()
            loss.backward(inputs=leaves)  # no gradients for the network's weights
        if delay:
            before.append([leaf.detach().clone() for leaf in leaves])
        adam.step()
        # On a GPU a loss is read one step later, so the device is never idle.
        losses.append(Reading(loss))
        looked = done - delay
        if looked > 0 and losses[looked - 1].value < enough:
            losses = losses[:looked]
            # The steps taken after the loss fell below the bound are undone, so that the result
            # does not depend on the delay.
            null = null.with_trainable(before[looked]) if delay else null
            break
    return null.detach(), losses


def _precise(text: Text) -> Text:
    return text.with_trainable([at_least_float32(values) for values in text.trainable])


def at_least_float32(values: Tensor) -> Tensor:
    """The same values, float32 where they were coarser: embeddings and losses need it."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
