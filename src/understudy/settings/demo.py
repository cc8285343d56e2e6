"""The settings of `demo`. Free of torch."""

from __future__ import annotations

import dataclasses

from understudy.settings.knobs import Settings, knob


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoSettings(Settings):
    """The main job on toys, small enough for two cores and three minutes."""

    seed: int = knob(0, "seed of the toy and the scene", at_least=0)
    photos: int = knob(4, "photos to learn from", at_least=1, at_most=20)
    learn_steps: int = knob(200, "optimiser steps of learning", at_least=1)
    learning_rate: float = knob(5e-4, "AdamW's learning rate", at_least=0, at_most=1)
    prior_samples: int = knob(16, "class images for prior preservation; 0: none", at_least=0)
    steps: int = knob(25, "inversion and swap steps", at_least=1, at_most=1000)
    guidance: float = knob(2.5, "guidance scale of inversion and swap", at_least=0, at_most=50)
