"""Plug-and-play: appearance from a prompt, layout from the source's features and self-attention.

Tumanyan et al. 2023, arXiv:2211.12572, in the arrangement of the authors' second code, which runs
the source beside the target. The source is never sampled: its latents are those of the inversion,
which may have more steps than the edit (999 as published). In the first steps targets take, in both
halves of guidance, the self-attention maps (queries and keys) of all decoder transformers but the
first, and the convolutional features in front of the second.

Flow transformers have neither decoder nor convolutions. There, image tokens take the maps of image
tokens in every layer (text is read with their own queries), and the image's residual after a block
a third of the way through is the source's, where ReFlex (Kim et al. 2025, arXiv:2507.01496) finds
the layout of FLUX. Knows models through their protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.attention.plan import AttentionPlan, Segments
from understudy.attention.site import AttentionSite
from understudy.diffusion.guidance import guidance_of, reads_unconditional
from understudy.diffusion.sampler import advance, times_of
from understudy.diffusion.schedule import moves
from understudy.diffusion.text import Text
from understudy.errors import InputError
from understudy.invert.inversion import Inversion
from understudy.models.interface import DiffusionModel
from understudy.models.unet.injection import FeaturePlan
from understudy.transfer.batch_layout import Texts
from understudy.transfer.blend import blended

FIRST = 1  # the decoder transformer from which on maps pass, and in front of which features do


@dataclass(frozen=True)
class InjectStep:
    """One finished step.

    index counts from 0 to total - 1; time is the one the network was told. target "k c h w" and
    source "1 c h w" are the latents after it, nfe the network evaluations of the step.
    """

    index: int
    total: int
    time: float
    target: Float[Tensor, "k c h w"]
    source: Float[Tensor, "1 c h w"]
    nfe: int


@dataclass(frozen=True)
class InjectControl:
    """Row 0 is the source's; all others take maps and features from it, where asked for."""

    rows: int
    maps: bool
    injects: bool

    def plan(self, site: AttentionSite) -> AttentionPlan | None:
        """Queries and keys of row 0 for all rows: of image tokens in joint layers; of U-Nets in the
        decoder's later self-attentions."""
        everywhere = site.block in ("double", "single")
        later = site.block == "up" and site.transformer >= FIRST
        if not self.maps or site.kind == "cross" or not (everywhere or later):
            return None
        if site.kind == "joint":
            source = Segments(image=(0,) * self.rows)
            return AttentionPlan(query_from=source, key_from=source)
        return AttentionPlan.maps((0,) * self.rows)

    @property
    def feature_plan(self) -> FeaturePlan | None:
        """The features of row 0 for all rows."""
        return FeaturePlan(FIRST, (0,) * self.rows) if self.injects else None


@torch.no_grad()
def plug_and_play_steps(
    model: DiffusionModel,
    inversion: Inversion,
    texts: Text,
    *,
    steps: int,
    guidance: float,
    map_steps: int,
    feature_steps: int,
    negative: Text | None = None,
    mask: Float[Tensor, "m 1 h w"] | None = None,
) -> Iterator[InjectStep]:
    """Denoise targets from the photo's noise, with the photo's layout.

    Args:
        inversion: of as many steps as the edit, or of any number whose times hold the edit's.
        texts: the targets' embeddings.
        map_steps, feature_steps: for how many first steps maps and features pass.
        negative: the unconditional embedding; None = the inversion's own.
        mask: of the latents' size, 1 = may change.

    Raises:
        InputError: the inversion lacks a time of the edit, or has kept no trajectory; a negative
            prompt or a guidance scale that the model would ignore.
    """
    path = source_path(model, inversion, steps)
    empty = model.embed([""])
    reads_unconditional(model, guidance, "" if negative is None else "negative")
    if guidance_of(model).kind == "embedded":
        texts, empty = texts.guided(guidance), empty.guided(1.0)
    target = path[:1].expand(len(texts), -1, -1, -1)
    times = times_of(model, steps, inversion.noise)
    for index, (start, end) in enumerate(pairwise(times)):
        before = model.nfe
        if moves(model.schedule, start, end):
            own = inversion.uncond(index) if inversion.steps == steps else None
            uncond = negative if negative is not None else empty if own is None else own
            output = _output(
                model,
                path[index : index + 1],
                target,
                start,
                Texts(uncond.to(texts), empty, texts, False),
                guidance,
                maps=index < map_steps,
                injects=index < feature_steps,
            )
            target = advance(model.schedule, target, output, start, end)
        source = path[index + 1 : index + 2]
        if mask is not None:
            target = blended(source, target, mask)
        yield InjectStep(index, steps, start, target, source, model.nfe - before)


def _output(
    model: DiffusionModel,
    source: Float[Tensor, "1 c h w"],
    target: Float[Tensor, "k c h w"],
    time: float,
    texts: Texts,
    guidance: float,
    *,
    maps: bool,
    injects: bool,
) -> Float[Tensor, "k c h w"]:
    """Guided output of the targets, from one call: the source if it is read, then the targets."""
    count, how = len(target), guidance_of(model)
    guides = how.kind == "cfg" and guidance != 1
    latents, text = [target], [texts.targets]
    if guides:
        latents, text = [target, *latents], [texts.uncond.expand(count), *text]
    if maps or injects:
        # The source row reads the empty prompt, as the authors' code does.
        latents, text = [source, *latents], [texts.source, *text]
    batch = torch.cat(latents)
    control = InjectControl(len(batch), maps, injects) if maps or injects else None
    output = model.predict(batch, time, Text.cat(text), control)
    cond = output[-count:]
    return how.combined(output[-2 * count : -count], cond, guidance) if guides else cond


def source_path(
    model: DiffusionModel, inversion: Inversion, steps: int
) -> Float[Tensor, "steps_1 c h w"]:
    """The source's latents before each step of an edit and after the last.

    Those of the inversion itself: guided replays deviate from it. Raises InputError.
    """
    wanted = times_of(model, steps, inversion.noise)
    if len(inversion.trajectory) <= inversion.steps:
        if inversion.path is None or wanted != inversion.times:
            raise InputError(
                "plug-and-play needs the source's latents of every step, and this inversion has "
                "only the last ones. Invert the photo, with any method."
            )
        return inversion.path
    missing = [t for t in wanted[:-1] if t not in inversion.times[:-1]]
    if missing:
        raise InputError(
            f"the photo was inverted in {inversion.steps} steps, which leave out time "
            f"{missing[0]} of an edit with --steps {steps}. Invert it with --inversion-steps "
            f"{steps}, or as many as the model has."
        )
    # trajectory[i] is the photo after i steps of the ascending times.
    at = {t: inversion.steps - place for place, t in enumerate(inversion.times[:-1])}
    return inversion.trajectory[[*(at[t] for t in wanted[:-1]), 0]]
