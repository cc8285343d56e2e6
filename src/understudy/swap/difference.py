"""A mask of the subject from the difference between two prompts' noise estimates (DiffEdit).

DiffEdit (Couairon et al. 2022, arXiv:2210.11427, section 3.2, step 1): noise is added to the photo,
and where the model's estimates of that noise for the two prompts differ, the subject is. Sharper
than attention to words, which a small model spreads over the ground around its subject, and it
needs no words. Knows models through their protocol.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.diffusion.text import Text
from understudy.models.interface import DiffusionModel
from understudy.pictures.tensors import blurred, grown

LEVEL = 0.6  # of the range of times: how noisy the photo is made (DiffEdit: 0.5)
SAMPLES = 8  # noises that are averaged (DiffEdit: 10)
THRESHOLD = 0.4  # between the level of the background and the strongest difference (DiffEdit: 0.5)
STRONGEST = 0.98  # quantile that counts as the strongest, so that one cell cannot decide
BACKGROUND = 0.4  # quantile that counts as the level of the background
BLUR = 0.7  # cells: deviation of the Gaussian that takes the grain out of the differences
LESSER = 0.25  # of the strongest part's difference: a part of the mask below it is a speck


@torch.no_grad()
def differences(
    model: DiffusionModel,
    latents: Float[Tensor, "1 c h w"],
    source_prompt: str,
    target_prompts: Sequence[str],
    *,
    level: float = LEVEL,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Float[Tensor, "k h w"]:
    """How much the noise estimates for each target prompt and the source prompt differ, by cell.

    latents are the photo's own. Costs samples * (k + 1) network evaluations; apply the concepts
    that the target prompts name.
    """
    time = model.schedule.time_at(level)
    total = torch.zeros(len(target_prompts), *latents.shape[2:], device=latents.device)
    texts = Text.cat([model.embed([prompt]) for prompt in (source_prompt, *target_prompts)])
    stream = torch.Generator().manual_seed(seed)
    for _ in range(samples):
        noise = torch.randn(latents.shape, generator=stream).to(latents)
        noisy = model.schedule.noised(latents, noise, time).expand(len(texts), -1, -1, -1)
        _, estimates = model.schedule.denoised(noisy, model.predict(noisy, time, texts), time)
        total += (estimates[1:] - estimates[:1]).abs().float().mean(1)
    return total / samples


def difference_mask(
    found: Float[Tensor, "k h w"], *, threshold: float = THRESHOLD, parts: int | None = None
) -> Float[Tensor, "k 1 h w"]:
    """1 where the prompts disagree, with a rim of one cell; everywhere if they nowhere do.

    A learned concept changes the estimates of the background a little, too. That level, the
    quantile BACKGROUND, is subtracted first. A part that stands alone counts if its differences
    sum up to a quarter of the strongest part's. parts: at most so many count, the strongest: a
    neighbour of the subject differs, too, but less. None = all of them.
    """
    found = blurred(found[:, None], BLUR)[:, 0]
    level = found.flatten(1).quantile(BACKGROUND, dim=1)[:, None, None]
    strongest = found.flatten(1).quantile(STRONGEST, dim=1)[:, None, None] - level
    found = (found - level).clamp(min=0).minimum(strongest)
    masks = found >= threshold * strongest
    whole = [_without_specks(mask, one, parts) for mask, one in zip(masks, found, strict=True)]
    return grown(torch.stack(whole)[:, None].float())


def _without_specks(
    mask: Bool[Tensor, "h w"], found: Float[Tensor, "h w"], most: int | None
) -> Bool[Tensor, "h w"]:
    """The parts of a mask (cells that touch, corners too) that hold enough of the difference."""
    left, parts = mask, list[tuple[float, Tensor]]()
    while bool(left.any()):
        part = torch.zeros_like(mask).flatten()
        part[(left * found - (~left).to(found)).argmax()] = True
        part, before = part.view_as(mask), mask
        while not torch.equal(part, before):
            part, before = grown(part[None, None].float())[0, 0].bool() & left, part
        parts.append((float(found[part].sum()), part))
        left = left & ~part
    parts = sorted(parts, key=lambda pair: -pair[0])[:most]
    strongest = parts[0][0] if parts else 0.0
    return sum((p for weight, p in parts if weight >= LESSER * strongest), torch.zeros_like(mask))
