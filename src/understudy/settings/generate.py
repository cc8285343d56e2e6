"""The settings of `generate`. Free of torch."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from understudy.settings.knobs import Settings, knob
from understudy.settings.resolve import Layers


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateSettings(Settings):
    """Prompt to pictures: DDIM, or anything up to ancestral sampling, with guidance."""

    filling: ClassVar[Layers] = Layers(verb="generate")

    steps: int = knob(50, "denoising steps", at_least=1, at_most=1000)
    guidance: float = knob(7.5, "classifier-free guidance scale", at_least=0, at_most=50)
    negative: str = knob("", "negative prompt")
    eta: float = knob(
        0.0, "noise added at each step: 0 is DDIM, 1 ancestral sampling", at_least=0, at_most=1
    )
    temperature: float = knob(
        1.0, "scale of the noise of --eta; below 1 gives smoother pictures", at_least=0, at_most=2
    )
