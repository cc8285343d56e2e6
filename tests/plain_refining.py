"""SDEdit with a blend, written out for the tests of refining: every row, step after step."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.plain import TARGET_C, TARGET_U, Plain
from test_swap import SOURCE, TARGET
from understudy.diffusion.sampler import drawn, noise_streams
from understudy.diffusion.text import Text
from understudy.invert.inversion import Inversion
from understudy.models.interface import DiffusionModel
from understudy.settings import SwapSettings
from understudy.swap.refine import AGAIN, refine_count
from understudy.transfer.step import AROUND


def refined_plainly(
    model: DiffusionModel,
    plain: Plain,
    begun: Tensor,
    inversion: Inversion,
    mask: Tensor,
    settings: SwapSettings,
    pictures: tuple[Tensor, Tensor, str] | None = None,
) -> Tensor:
    """The refined latents. The plain processors must be in the model's layers.

    begun: the latents that noise is added to. pictures: latents, their noise and their prompt, for
    rows behind the four of a step.
    """
    steps, clean = settings.steps, inversion.clean
    first, later, around = (
        noise_streams([settings.noise_seed + number])
        for number in (AGAIN, AGAIN + 1, AGAIN + AROUND)
    )
    schedule, shape, times = model.schedule, clean.shape[1:], inversion.times
    latents, still, prompt = pictures or (clean[:0], clean[:0], "")
    said = ("", "", SOURCE, TARGET, *[prompt] * len(latents))
    texts = Text.cat([model.embed([one]) for one in said])
    begin = steps - refine_count(settings)
    x = schedule.noised(begun, drawn(first, shape, like=model), times[begin])
    for index in range(begin, steps):
        start, end, plain.step = times[index], times[index + 1], index
        source = inversion.path[index : index + 1]
        shown = schedule.noised(latents, still, start)
        rows = model.predict(torch.cat([source, x, source, x, shown]), start, texts)
        none, told = rows[TARGET_U][None], rows[TARGET_C][None]
        picture, noise = schedule.denoised(x, none + settings.guidance * (told - none), start)
        if end == times[-1]:
            return clean + mask * (
                schedule.signal(end) * picture + schedule.noise(end) * noise - clean
            )
        sigma = settings.eta * schedule.fresh_noise(start, end)
        fresh = settings.temperature * drawn(later, shape, like=model)
        kept = (schedule.noise(end) ** 2 - sigma**2) ** 0.5
        x = schedule.signal(end) * picture + kept * noise + sigma * fresh
        photo = schedule.noised(clean, drawn(around, shape, like=model), end)
        x = photo + mask * (x - photo)
    raise AssertionError("the loop ends in its last step")
