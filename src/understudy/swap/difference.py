"""Where two prompts disagree about a photo: a mask of what is to be swapped, before it begins.

DiffEdit (Couairon et al. 2022, arXiv:2210.11427, section 3.2, step 1): noise is added to the photo,
and where the model's estimates of that noise for the two prompts differ, the subject is. Sharper
than attention to words, which a small model spreads over the ground around its subject, and it
needs no words. Knows models through their protocol.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.models.interface import DiffusionModel

LEVEL = 0.6  # of the timesteps: how noisy the photo is made (DiffEdit: 0.5)
SAMPLES = 8  # noises that are averaged (DiffEdit: 10)
THRESHOLD = 0.35  # of the strongest difference (DiffEdit: 0.5, after cutting off outliers)
STRONGEST = 0.98  # quantile that counts as the strongest, so that one cell cannot decide


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

    latents are the photo's own. Costs samples * (k + 1) U-Net rows; the model wears whatever the
    target prompts speak of.
    """
    timestep = round(level * (model.schedule.length - 1))
    total = torch.zeros(len(target_prompts), *latents.shape[2:], device=latents.device)
    texts = torch.cat([model.embed([prompt]) for prompt in (source_prompt, *target_prompts)])
    stream = torch.Generator().manual_seed(seed)
    for _ in range(samples):
        noise = torch.randn(latents.shape, generator=stream).to(latents)
        noisy = model.schedule.noised(latents, noise, timestep)
        estimates = model.predict_noise(noisy.expand(len(texts), -1, -1, -1), timestep, texts)
        total += (estimates[1:] - estimates[:1]).abs().float().mean(1)
    return total / samples


def difference_mask(
    found: Float[Tensor, "k h w"], *, threshold: float = THRESHOLD
) -> Float[Tensor, "k 1 h w"]:
    """1 where the prompts disagree, with a rim of one cell; everywhere if they nowhere do."""
    strongest = found.flatten(1).quantile(STRONGEST, dim=1)[:, None, None]
    mask = (found >= threshold * strongest).float()[:, None]
    return F.max_pool2d(mask, 3, stride=1, padding=1)
