"""The settings of `project`. Free of torch."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from understudy.settings.knobs import Settings, knob
from understudy.settings.resolve import Layers, Value

# "official": the authors' program, which ends tuning at an LPIPS distance (--measure lpips).
# "best": the same to the end of its steps, whatever the measure.
PRESETS: dict[str, dict[str, Value]] = {"best": {}, "official": {"stop_at": 0.06}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjectSettings(Settings):
    """A photo to a latent of a generator: projection (Karras et al. 2020), then pivotal tuning
    (Roich et al. 2021)."""

    filling: ClassVar[Layers] = Layers(verb="project", presets={"": PRESETS})

    preset: str = knob(
        "best", "a named set of values, which options override", choices=tuple(PRESETS)
    )
    space: str = knob(
        "w", "w: one latent for all layers; w+: one for each layer", choices=("w", "w+")
    )
    steps: int = knob(450, "projection steps", at_least=1, at_most=100_000)
    learning_rate: float = knob(
        0.01, "Adam's largest learning rate of projection", at_least=0, at_most=1
    )
    samples: int = knob(
        600,
        "random latents for the mean and standard deviation of W",
        at_least=2,
        at_most=1_000_000,
    )
    latent_noise: float = knob(
        0.05, "initial noise on the latent, in standard deviations of W", at_least=0
    )
    noise_weight: float = knob(1e5, "weight of the noise regularisation", at_least=0)
    tune_steps: int = knob(350, "pivotal tuning steps; 0: no tuning", at_least=0, at_most=100_000)
    tune_rate: float = knob(3e-4, "Adam's learning rate of pivotal tuning", at_least=0, at_most=1)
    l2_weight: float = knob(1.0, "pivotal tuning: weight of the squared error", at_least=0)
    perceptual_weight: float = knob(
        1.0, "pivotal tuning: weight of the perceptual distance", at_least=0
    )
    stop_at: float = knob(
        0.0, "pivotal tuning: stop at this perceptual distance; 0: never", at_least=0
    )
    locality: float = knob(0.0, "pivotal tuning: weight of the locality regularisation", at_least=0)
    seed: int = knob(0, "seed of all random numbers", at_least=0)
    keep_every: int = knob(100, "steps between checkpoints", at_least=1)
