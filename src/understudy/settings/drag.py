"""The settings of `drag`. Free of torch."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from understudy.settings.knobs import Settings, knob
from understudy.settings.resolve import Layers, Value

# "official": the authors' program as it runs (its docs say otherwise in places: see
# docs/methods.md); "mirrored": the same before July 2023. "paper": the text and its equations.
_OFFICIAL: dict[str, Value] = {
    "learning_rate": 1e-3,
    "feature_resolution": 0,
    "stop_distance": 2.0,
    "hold_reached": False,
    "clamp_step": False,
    "reference": "current",
    "disc": "published",
    "subpixel": False,
    "doubt": 0.0,
    "reset_optimiser": False,
    "stall_steps": 0,
}
PRESETS: dict[str, dict[str, Value]] = {
    "best": {},
    "official": _OFFICIAL,
    "mirrored": {**_OFFICIAL, "motion": "mirrored"},
    "paper": {
        **_OFFICIAL,
        "learning_rate": 2e-3,
        "feature_resolution": 256,
        "stop_distance": 0.0,
        "dead_zone": 0.0,
        "disc": "centred",
        "reduction": "sum",
        "norm": "l1",
        "window": "open",
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DragSettings(Settings):
    """DragGAN (Pan et al. 2023). Lengths are in pixels of a 512-pixel picture."""

    filling: ClassVar[Layers] = Layers(verb="drag", presets={"": PRESETS})

    preset: str = knob("best", "named set of values to start from", choices=tuple(PRESETS))
    space: str = knob("w+", "w+ moves every layer by itself, w all alike", choices=("w+", "w"))
    steps: int = knob(300, "most optimiser steps of one drag", at_least=1, at_most=100_000)
    learning_rate: float = knob(2e-3, "Adam's learning rate", at_least=0, at_most=1)
    layers: int = knob(6, "how many first layers of the latent move", at_least=1, at_most=64)
    truncation: float = knob(0.7, "how far a seed is from the mean", at_least=-2, at_most=2)
    feature_resolution: int = knob(
        0, "block whose features are used; 0: 128, or half the picture if less", at_least=0
    )
    tracking_resolution: int = knob(
        0, "block whose features are tracked; 0: the same as are supervised", at_least=0
    )
    r1: float = knob(3.0, "radius of motion supervision", at_least=0.5, at_most=100)
    r2: float = knob(12.0, "radius of point tracking", at_least=1, at_most=200)
    mask_weight: float = knob(20.0, "weight of what may not change (lambda)", at_least=0)
    latent_weight: float = knob(0.0, "weight of the latent's distance from its start", at_least=0)
    stop_distance: float = knob(
        0.5, "stop when all are this near; 0: 1 pixel, 2 with over 5 points", at_least=0
    )
    dead_zone: float = knob(1.0, "pixels from its target where a handle is let go", at_least=0)
    hold_reached: bool = knob(True, "handles that arrived are held there instead of let go")
    clamp_step: bool = knob(True, "pull no farther than the target")
    reference: str = knob(
        "auto",
        "what a handle is to look like: as at the start, as now; auto: as now under a mask",
        choices=("auto", "current", "original"),
    )
    motion: str = knob("forward", "side that is trained", choices=("forward", "mirrored"))
    disc: str = knob("centred", "grid of supervision", choices=("published", "centred"))
    reduction: str = knob("mean", "of differences over pixels", choices=("mean", "sum"))
    norm: str = knob("l2", "of differences when tracking", choices=("l2", "l1"))
    window: str = knob("closed", "whether r2 itself is searched", choices=("closed", "open"))
    subpixel: bool = knob(True, "track between pixels")
    doubt: float = knob(
        0.5, "feature distance over norm above which a wider search follows; 0: never", at_least=0
    )
    reset_optimiser: bool = knob(True, "forget Adam's moments when a drag begins")
    stall_steps: int = knob(
        60, "stop when the way left has not shrunk for so many steps; 0: never", at_least=0
    )
    keep_every: int = knob(5, "keep each so manieth latent for films and undo", at_least=1)
