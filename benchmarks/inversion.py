"""Does an inversion replay the photo? Null-text, negative-prompt and direct inversion, beside plain
DDIM, all against the autoencoder's ceiling."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from benchmarks import cases
from benchmarks.rows import Row
from understudy import toybox
from understudy.diffusion.sampler import sample_steps
from understudy.evaluate import truth
from understudy.invert.inversion import Inversion, InvertStep, ddim_inversion_steps
from understudy.invert.invert import method_steps
from understudy.models.interface import DiffusionModel
from understudy.pictures import metrics
from understudy.settings import InvertSettings

COLUMNS = (
    "autoencoder's ceiling, dB",
    "null-text, dB",
    "null-text below the ceiling, dB",
    "negative-prompt at the same guidance, dB",
    "direct, dB",
    "DDIM at the same guidance, dB",
    "DDIM without guidance, dB",
    "inner steps",
    "null-text U-Net rows",
    "null-text seconds",
)


@torch.no_grad()
def reconstruction(model: DiffusionModel, number: int, settings: InvertSettings) -> Row:
    """Invert held-out picture `number` with a plain caption and replay it."""
    scene = cases.scene(number)
    known, prompt = truth.shown(scene), toybox.plain_caption(scene)
    latents = model.encode(known.picture)
    started, before = time.monotonic(), model.nfe
    steps: list[InvertStep] = list(
        method_steps(model, latents, prompt, replace(settings, method="null-text"))
    )
    seconds, rows = time.monotonic() - started, model.nfe - before
    inversion = steps[-1].inversion
    assert inversion is not None and inversion.replay is not None

    def quality(latents: torch.Tensor) -> float:
        return metrics.psnr(model.decode(latents), known.picture).item()

    def untuned(method: str) -> Inversion:
        *_, last = method_steps(model, latents, prompt, replace(settings, method=method))
        assert last.inversion is not None
        return last.inversion

    negative, direct = untuned("negative-prompt"), untuned("direct")
    assert negative.null_embeddings is not None and direct.path is not None

    ceiling, null_text = quality(latents), quality(inversion.replay[-1:])
    return {
        "autoencoder's ceiling, dB": ceiling,
        "null-text, dB": null_text,
        "null-text below the ceiling, dB": ceiling - null_text,
        "negative-prompt at the same guidance, dB": quality(
            sampled(model, negative, prompt, settings.guidance)
        ),
        "direct, dB": quality(direct.path[-1:]),
        "DDIM at the same guidance, dB": quality(
            ddim_replay(model, latents, prompt, settings.steps, settings.guidance)
        ),
        "DDIM without guidance, dB": quality(
            ddim_replay(model, latents, prompt, settings.steps, 1.0)
        ),
        "inner steps": float(sum(step.inner for step in steps)),
        "null-text U-Net rows": float(rows),
        "null-text seconds": seconds,
    }


def ddim_replay(
    model: DiffusionModel, latents: torch.Tensor, prompt: str, steps: int, guidance: float
) -> torch.Tensor:
    """The latents that sampling gives from the DDIM-inverted noise."""
    *_, last = ddim_inversion_steps(model, latents, prompt, steps=steps)
    found: Inversion | None = last.inversion
    assert found is not None
    return sampled(model, found, prompt, guidance)


def sampled(model: DiffusionModel, found: Inversion, prompt: str, guidance: float) -> torch.Tensor:
    """The latents that guided sampling gives from the inversion's noise, with its own embedding in
    place of the empty prompt's where it has one for all steps."""
    *_, drawn = sample_steps(
        model,
        found.noise,
        model.embed([prompt]),
        found.null_embeddings or model.embed([""]),
        steps=found.steps,
        guidance=guidance,
    )
    return drawn.latents
