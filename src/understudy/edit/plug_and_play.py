"""Plug-and-play: a text gives the look, the source's features and self-attention give the layout.

Tumanyan et al. 2023, arXiv:2211.12572, in the arrangement of the authors' second code, which runs
the source beside the target. The source is never sampled: its latents are those of the inversion,
which may have more steps than the edit (999 as published). In the first steps targets take, in both
halves of guidance, the self-attention maps (queries and keys) of all decoder transformers but the
first, and the convolutional features in front of the second. Knows models through their protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.attention.plan import AttentionPlan, AttentionSite
from understudy.diffusion.sampler import ddim_step, guided, next_lower, timesteps
from understudy.errors import InputError
from understudy.invert.inversion import Inversion, moves
from understudy.models.interface import DiffusionModel
from understudy.models.unet.injection import FeaturePlan
from understudy.transfer.blend import blended

FIRST = 1  # the decoder transformer from which on maps pass, and in front of which features do


@dataclass(frozen=True)
class InjectStep:
    """One finished step.

    index counts from 0 to total - 1; timestep is the one just denoised. target "k c h w" and
    source "1 c h w" are the latents after it, rows what it cost.
    """

    index: int
    total: int
    timestep: int
    target: Float[Tensor, "k c h w"]
    source: Float[Tensor, "1 c h w"]
    rows: int


@dataclass(frozen=True)
class InjectControl:
    """Row 0 is the source's; all others take maps and features from it, where asked for."""

    rows: int
    maps: bool
    injects: bool

    def plan(self, site: AttentionSite) -> AttentionPlan | None:
        """Queries and keys of row 0 for all rows, in the decoder's later self-attentions."""
        later = site.block == "up" and site.transformer >= FIRST
        if not self.maps or site.is_cross or not later:
            return None
        return AttentionPlan(map_from=(0,) * self.rows)

    @property
    def feature_plan(self) -> FeaturePlan | None:
        """The convolutional features of row 0 for all rows."""
        return FeaturePlan(FIRST, (0,) * self.rows) if self.injects else None


@torch.no_grad()
def plug_and_play_steps(
    model: DiffusionModel,
    inversion: Inversion,
    texts: Float[Tensor, "k tokens width"],
    *,
    steps: int,
    guidance: float,
    map_steps: int,
    feature_steps: int,
    negative: Float[Tensor, "1 tokens width"] | None = None,
    mask: Float[Tensor, "m 1 h w"] | None = None,
) -> Iterator[InjectStep]:
    """Denoise targets from the photo's noise, with the photo's layout.

    Args:
        inversion: of as many steps as the edit, or of any number whose timesteps hold the edit's.
        texts: the targets' embeddings.
        map_steps, feature_steps: for how many first steps maps and features pass.
        negative: the unconditional embedding; None = the inversion's own.
        mask: of the latents' size, 1 = may change.

    Raises:
        InputError: the inversion lacks a timestep of the edit, or has kept no trajectory.
    """
    path = source_path(model, inversion, steps)
    empty = model.embed([""])
    target = path[:1].expand(len(texts), -1, -1, -1)
    for index, timestep in enumerate(timesteps(model.schedule, steps)):
        before, end = model.rows, next_lower(model.schedule, steps, timestep)
        if moves(model.schedule, timestep, end):
            own = inversion.uncond(index) if inversion.steps == steps else None
            uncond = negative if negative is not None else empty if own is None else own
            noise = _noise(
                model,
                path[index : index + 1],
                target,
                timestep,
                texts,
                None if guidance == 1 else uncond.to(texts),
                empty,
                guidance,
                maps=index < map_steps,
                injects=index < feature_steps,
            )
            target = ddim_step(model.schedule, target, noise, timestep, end)
        source = path[index + 1 : index + 2]
        if mask is not None:
            target = blended(source, target, mask)
        yield InjectStep(index, steps, timestep, target, source, model.rows - before)


def _noise(
    model: DiffusionModel,
    source: Float[Tensor, "1 c h w"],
    target: Float[Tensor, "k c h w"],
    timestep: int,
    texts: Float[Tensor, "k tokens width"],
    uncond: Float[Tensor, "1 tokens width"] | None,
    empty: Float[Tensor, "1 tokens width"],
    guidance: float,
    *,
    maps: bool,
    injects: bool,
) -> Float[Tensor, "k c h w"]:
    """Guided noise of the targets, from one call: the source if it is read, then the targets."""
    count = len(target)
    latents, text = [target], [texts]
    if uncond is not None:
        latents, text = [target, *latents], [uncond.expand_as(texts), *text]
    if maps or injects:
        latents, text = [source, *latents], [empty, *text]
    batch = torch.cat(latents)
    control = InjectControl(len(batch), maps, injects) if maps or injects else None
    noise = model.predict_noise(batch, timestep, torch.cat(text), control)
    cond = noise[-count:]
    return cond if uncond is None else guided(noise[-2 * count : -count], cond, guidance)


def source_path(
    model: DiffusionModel, inversion: Inversion, steps: int
) -> Float[Tensor, "steps_1 c h w"]:
    """The source's latents before each step of an edit and after the last.

    Those of the inversion itself: guided replays deviate from it. Raises InputError.
    """
    wanted = timesteps(model.schedule, steps)
    if len(inversion.trajectory) <= inversion.steps:
        if inversion.path is None or tuple(wanted) != inversion.timesteps:
            raise InputError(
                "plug-and-play reads the source's latents at every step, and this inversion kept "
                "only its end. Invert a photo, by any method."
            )
        return inversion.path
    missing = [t for t in wanted if t not in inversion.timesteps]
    if missing:
        raise InputError(
            f"the photo was inverted in {inversion.steps} steps, which leave out timestep "
            f"{missing[0]} of an edit with --steps {steps}. Invert it with --inversion-steps "
            f"{steps}, or as many as the model has."
        )
    # trajectory[i] is the photo after i steps of the ascending timesteps.
    at = {t: inversion.steps - place for place, t in enumerate(inversion.timesteps)}
    return inversion.trajectory[[*(at[t] for t in wanted), 0]]
