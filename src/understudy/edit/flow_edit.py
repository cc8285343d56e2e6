"""FlowEdit and FlowAlign: a photo is edited by the difference of two velocities; no inversion.

FlowEdit: Kulikov et al. 2024, arXiv:2412.08629, Algorithm 1. FlowAlign: Kim et al. 2025,
arXiv:2505.23145. Both walk from the photo x to the edit z along the times of a sampling run. Each
step noises the photo, q = (1 - sigma) x + sigma eps, moves the edit to the same noise level,
p = q + (z - x), and moves z by the difference of the velocities at p and q. Neither reads or
changes attention, so they run on any flow model. Where both velocities are equal, z stays x.

Written as functions of a velocity; the verb for models is `flow_edit_steps`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.concept import Concept, embedded, spelled
from understudy.device_copies import sent
from understudy.diffusion.flow import FlowSchedule
from understudy.diffusion.guidance import guidance_of, reads_unconditional
from understudy.diffusion.sampler import guided, times_of
from understudy.diffusion.schedule import wide
from understudy.diffusion.text import Text
from understudy.edit.step import EditStep
from understudy.errors import InputError
from understudy.models.interface import DiffusionModel
from understudy.settings import EditSettings
from understudy.transfer.blend import blended, latent_mask
from understudy.transfer.source_target import Target, Targets, mask_of, targets_of

ALIGNMENT = 0.01  # FlowAlign: weight of the pull of the two clean predictions together

Pair = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""(edit "k c h w", photo "1 c h w", sigma) -> velocities of the targets, and of the source."""
Draw = Callable[[], Tensor]
"""The next standard normal noise "1 c h w"."""


@dataclass(frozen=True)
class Walk:
    """Which steps are taken, and how.

    Attributes:
        times: the steps + 1 times of a sampling run, from noise to clean.
        n_max: steps at the clean end that are taken; more change the photo more.
        n_min: of those, the last ones sample the target alone (FlowEdit).
        n_avg: noises per step whose differences are averaged (FlowEdit).
    """

    times: Sequence[float]
    n_max: int
    n_min: int = 0
    n_avg: int = 1

    @property
    def taken(self) -> list[tuple[int, float, float]]:
        """How many steps are left, itself included, and the two times of each step taken."""
        total = len(self.times) - 1
        steps = [(total - i, start, end) for i, (start, end) in enumerate(pairwise(self.times))]
        return [step for step in steps if step[0] <= self.n_max]


def flowedit_walk(
    pair: Pair, photo: Float[Tensor, "1 c h w"], walk: Walk, draw: Draw, targets: int = 1
) -> Iterator[Float[Tensor, "k c h w"]]:
    """FlowEdit: the edits after each step. pair: both velocities with their own guidance."""
    x = wide(photo)
    z = x.expand(targets, *x.shape[1:])
    sampled: Tensor | None = None
    for left, start, end in walk.taken:
        if left > walk.n_min:
            change = torch.zeros_like(z)
            for _ in range(walk.n_avg):
                q = (1 - start) * x + start * draw()
                ours, theirs = pair(q + (z - x), q, start)
                change = change + (ours - theirs) / walk.n_avg
            z = z + (end - start) * change
            yield z
            continue
        if sampled is None:
            sampled = (1 - start) * x + start * draw() + (z - x)
        ours, _ = pair(sampled, x, start)
        sampled = sampled + (end - start) * ours
        yield sampled


def flowalign_walk(
    three: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor, Tensor]],
    photo: Float[Tensor, "1 c h w"],
    walk: Walk,
    draw: Draw,
    targets: int = 1,
    *,
    guidance: float = 13.5,
) -> Iterator[Float[Tensor, "k c h w"]]:
    """FlowAlign: the edits after each step.

    three: (p, q, sigma) -> velocities at p for the targets, at p for the source prompt, at q for
    the source prompt, all without guidance. Guidance is from the source prompt to the target's.
    """
    x = wide(photo)
    z = x.expand(targets, *x.shape[1:])
    for _, start, end in walk.taken:
        q = (1 - start) * x + start * draw()
        p = q + (z - x)
        target, source, v_q = three(p, q, start)
        v_p = guided(source, target, guidance)
        clean_p, clean_q = p - start * v_p, q - start * v_q
        z = z + (end - start) * (v_p - v_q) + ALIGNMENT * (clean_q - clean_p)
        yield z


@torch.no_grad()
def flow_edit_steps(
    model: DiffusionModel,
    latents: Float[Tensor, "1 c h w"],
    source_prompt: str,
    targets: Targets,
    settings: EditSettings,
    *,
    concepts: Sequence[Concept] = (),
) -> Iterator[EditStep]:
    """Edit a photo's latents by FlowEdit or FlowAlign, a step at a time.

    Args:
        latents: of the photo: the posterior's mode, as `DiffusionModel.encode` gives.
        targets: prompts, which may name concepts that are applied to the model, and masks.

    Raises InputError for a model that is no flow model, for targets with words, and for a negative
    prompt that the method does not take.
    """
    check_flow(model, settings.method)
    if settings.method == "flowalign" and settings.negative:
        raise InputError(
            "flowalign is guided from the source prompt to the target prompt, so it takes no "
            "negative prompt. Leave --negative out, or use --method flowedit."
        )
    named = targets_of(targets)
    texts = target_texts(model, named, settings, concepts)
    reader = _Velocities(
        model, model.embed([source_prompt]), texts, model.embed([settings.negative])
    )
    walk = Walk(
        times_of(model, settings.steps, latents),
        min(settings.n_max, settings.steps),
        settings.n_min,
        settings.n_avg,
    )
    draw = _drawing(latents, settings.noise_seed)
    if settings.method == "flowalign":
        found = flowalign_walk(
            reader.three, latents, walk, draw, len(named), guidance=settings.guidance
        )
    else:
        pair = reader.pair(settings.guidance, settings.source_guidance)
        found = flowedit_walk(pair, latents, walk, draw, len(named))
    where, mask = None, mask_of(named)
    if mask is not None:
        height, width = latents.shape[-2:]
        where = latent_mask(mask, (height, width)).to(latents.device)
    total, before = len(walk.taken), model.nfe
    for index, ((_, start, _), z) in enumerate(zip(walk.taken, found, strict=True)):
        shown = z if where is None else blended(wide(latents), z, where)
        yield EditStep(index, total, start, shown, where, model.nfe - before)
        before = model.nfe
    if not total:
        yield EditStep(0, 1, 0.0, wide(latents).expand(len(named), -1, -1, -1), where, 0)


def target_texts(
    model: DiffusionModel,
    targets: Sequence[Target],
    settings: EditSettings,
    concepts: Sequence[Concept],
) -> Text:
    """What the network reads of k targets, with the concepts that their prompts name: k rows.

    Raises InputError for targets with words, PromptError for a prompt that is too long.
    """
    if any(target.words for target in targets):
        raise InputError(f"{settings.method} cannot limit a change to words. Use a mask.")
    for target in targets:
        model.tokenize(spelled(target.prompt, *concepts))
    scale, found = settings.tail_scale or None, list[Text]()
    for target in targets:
        own = target.text
        if own is None:
            own = embedded(model, [target.prompt], *concepts, tail_scale=scale)
        found.append(own)
    return Text.cat(found)


def check_flow(model: DiffusionModel, method: str) -> None:
    """Refuse FlowEdit, FlowAlign and KV-Edit on a model without a velocity."""
    if not isinstance(model.schedule, FlowSchedule):
        raise InputError(
            f"--method {method} edits with flow models (Stable Diffusion 3, FLUX and others); "
            f"{model.name} is a diffusion model. Use --method p2p or pnp."
        )


def _drawing(like: Tensor, seed: int) -> Draw:
    """Fresh noise for each step from one seed, drawn on the CPU."""
    stream = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return sent(torch.randn(like.shape, generator=stream), like.device, wide(like).dtype)

    return draw


class _Velocities:
    """A model's velocities for source and targets; each step is one call of the network."""

    def __init__(self, model: DiffusionModel, source: Text, targets: Text, negative: Text) -> None:
        self.model, self.source, self.targets, self.negative = model, source, targets, negative

    def pair(self, guidance: float, source_guidance: float) -> Pair:
        """Velocities with guidance against the negative prompt: (targets at z, source at q)."""
        how = guidance_of(self.model)
        free = [reads_unconditional(self.model, scale) for scale in (guidance, source_guidance)]

        def call(z: Tensor, q: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
            rows = [(z, self.targets, guidance), (q, self.source, source_guidance)]
            latents, texts = list[Tensor](), list[Text]()
            for (x, text, scale), both in zip(rows, free, strict=True):
                read = text.guided(scale) if how.kind == "embedded" else text
                latents += [x, x] if both else [x]
                texts += [self.negative.expand(len(x)), read] if both else [read]
            found = self.model.predict(torch.cat(latents), sigma, Text.cat(texts))
            parts, out = list(found.split([len(x) for x in latents])), list[Tensor]()
            for (_, _, scale), both in zip(rows, free, strict=True):
                first = parts.pop(0)
                out.append(how.combined(first, parts.pop(0), scale) if both else first)
            return out[0], out[1]

        return call

    def three(self, p: Tensor, q: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
        """Velocities without guidance: of the targets and of the source at p, of it at q."""
        count = len(p)
        text = Text.cat([self.targets, self.source.expand(count), self.source])
        found = self.model.predict(torch.cat([p, p, q]), sigma, text)
        target, source, still = found.split([count, count, 1])
        return target, source, still
