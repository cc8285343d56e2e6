"""How well each inversion of a flow model replays a photo, at 10 and 25 steps, below the
autoencoder's ceiling: walked back by its own solver, and sampled by Euler with guidance."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import torch

from benchmarks import cases
from benchmarks.rows import Row
from understudy import toybox
from understudy.diffusion.sampler import sample_steps
from understudy.evaluate import truth
from understudy.invert.invert import method_steps
from understudy.invert.rectified_flow import FLOW_METHODS
from understudy.models.interface import DiffusionModel
from understudy.pictures import metrics
from understudy.settings import InvertSettings

STEPS = (10, 25)
CEILING = "autoencoder's ceiling, dB"
WAYS = tuple(f"{method}, {steps} steps" for steps, method in product(STEPS, FLOW_METHODS))
COLUMNS = (
    CEILING,
    *(f"{way}: below the ceiling, dB" for way in WAYS),
    *(f"{way}: sampled with guidance, dB" for way in WAYS),
    *(f"{way}: evaluations" for way in WAYS),
)


@torch.no_grad()
def reconstruction(model: DiffusionModel, number: int, settings: InvertSettings) -> Row:
    """Invert held-out picture `number` with a plain caption by every method, and draw it again."""
    scene = cases.scene(number)
    known, prompt = truth.shown(scene), toybox.plain_caption(scene)
    latents = model.encode(known.picture)

    def quality(found: torch.Tensor) -> float:
        return metrics.psnr(model.decode(found), known.picture).item()

    row: Row = {CEILING: quality(latents)}
    texts = model.embed([prompt]), model.embed([""])
    for way, (steps, method) in zip(WAYS, product(STEPS, FLOW_METHODS), strict=True):
        before, how = model.nfe, replace(settings, method=method, steps=steps)
        *_, last = method_steps(model, latents, prompt, how)
        inversion = last.inversion
        assert inversion is not None
        row[f"{way}: evaluations"] = float(model.nfe - before)
        row[f"{way}: below the ceiling, dB"] = row[CEILING] - quality(inversion.path[-1:])
        *_, sampled = sample_steps(
            model, inversion.noise, *texts, steps=steps, guidance=settings.guidance
        )
        row[f"{way}: sampled with guidance, dB"] = quality(sampled.latents)
    return row
