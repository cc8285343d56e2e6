"""The settings of `invert`. Free of torch."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from understudy.settings.knobs import Settings, knob
from understudy.settings.resolve import Layers

METHODS = ("null-text", "ddim", "negative-prompt", "direct")


@dataclasses.dataclass(frozen=True, kw_only=True)
class InvertSettings(Settings):
    """Photo to what the model can replay. Defaults: null-text inversion as its authors run it."""

    filling: ClassVar[Layers] = Layers(verb="invert")

    method: str = knob("null-text", "inversion method", choices=METHODS)
    steps: int = knob(50, "inversion steps; a swap must use as many", at_least=1, at_most=1000)
    guidance: float = knob(7.5, "guidance scale of the reconstruction", at_least=0, at_most=50)
    inner_steps: int = knob(10, "null-text: optimiser steps per timestep", at_least=0, at_most=1000)
    epsilon: float = knob(1e-5, "null-text: loss at which the inner optimisation stops", at_least=0)
    learning_rate: float = knob(
        1e-2, "null-text: Adam's learning rate at the first timestep", at_least=0
    )
