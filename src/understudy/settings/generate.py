"""The settings of `generate`. Free of torch."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from understudy.settings.knobs import Settings, knob
from understudy.settings.resolve import Layers, Values

SAMPLERS = ("ddim", "dpm++", "unipc", "euler")


def _rule(values: Values, given: Values) -> Values:
    """Only ddim adds noise at each step: what suits a model there does not bind the others."""
    return {**values, "eta": 0.0} if values["sampler"] != "ddim" else values


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateSettings(Settings):
    """Prompt to pictures: DDIM, or anything up to ancestral sampling, with guidance."""

    filling: ClassVar[Layers] = Layers(verb="generate", rule=_rule)

    steps: int = knob(50, "denoising steps", at_least=1, at_most=1000)
    sampler: str = knob(
        "ddim",
        "sampling method: ddim (Euler for flow models), or DPM-Solver++, UniPC, Euler of diffusers",
        choices=SAMPLERS,
    )
    guidance: float = knob(7.5, "classifier-free guidance scale", at_least=0, at_most=50)
    guidance_rescale: float = knob(
        0.0,
        "share by which guided output gets the standard deviation of unguided output, which keeps "
        "strong guidance from raising the contrast",
        at_least=0,
        at_most=1,
    )
    pag_scale: float = knob(
        0.0,
        "scale of perturbed-attention guidance, which sharpens shapes at one more network "
        "evaluation a step, like 3; 0: none",
        at_least=0,
        at_most=50,
    )
    pag_layers: str = knob(
        "mid",
        "blocks whose self-attention --pag-scale perturbs: mid, all, or like down.1,up.0 "
        "(U-Nets), double.7-9 (flow transformers)",
    )
    negative: str = knob("", "negative prompt")
    eta: float = knob(
        0.0, "noise added at each step: 0 is DDIM, 1 ancestral sampling", at_least=0, at_most=1
    )
    temperature: float = knob(
        1.0, "scale of the noise of --eta; below 1 gives smoother pictures", at_least=0, at_most=2
    )
    strength: float = knob(
        0.7,
        "with --init: share of the steps that run on the noised photo; 1 keeps nothing of it",
        at_least=0.01,
        at_most=1,
    )
    variations: float = knob(
        0.0,
        "similar pictures: share by which the noise of further seeds differs from that of --seed, "
        "like 0.1; 0: independent pictures",
        at_least=0,
        at_most=1,
    )
