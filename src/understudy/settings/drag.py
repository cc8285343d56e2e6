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

    preset: str = knob(
        "best", "a named set of values, which options override", choices=tuple(PRESETS)
    )
    space: str = knob(
        "w+", "w: one latent for all layers; w+: one for each layer", choices=("w+", "w")
    )
    steps: int = knob(300, "largest number of optimiser steps", at_least=1, at_most=100_000)
    learning_rate: float = knob(2e-3, "Adam's learning rate", at_least=0, at_most=1)
    layers: int = knob(
        6, "number of layers of the latent to optimise, from the first", at_least=1, at_most=64
    )
    truncation: float = knob(0.7, "truncation psi", at_least=-2, at_most=2)
    feature_resolution: int = knob(
        0,
        "resolution of the features for motion supervision; 0: 128, or half the picture if smaller",
        at_least=0,
    )
    tracking_resolution: int = knob(
        0, "resolution of the features for point tracking; 0: as for motion supervision", at_least=0
    )
    r1: float = knob(3.0, "radius of motion supervision", at_least=0.5, at_most=100)
    r2: float = knob(12.0, "radius of point tracking", at_least=1, at_most=200)
    mask_weight: float = knob(20.0, "weight of the mask loss (lambda)", at_least=0)
    latent_weight: float = knob(
        0.0, "weight of the latent's distance from its initial value", at_least=0
    )
    principal: bool = knob(
        False, "take steps along the principal directions of W, in proportion to their spread"
    )
    prior_weight: float = knob(
        0.0,
        "weight of the latent's squared distance from its initial value in standard deviations "
        "along the principal directions of W",
        at_least=0,
    )
    stop_distance: float = knob(
        0.5,
        "distance at which a drag stops, in pixels; 0: 1, or 2 with more than 5 points",
        at_least=0,
    )
    dead_zone: float = knob(
        1.0, "distance at which a handle is no longer supervised, in pixels", at_least=0
    )
    hold_reached: bool = knob(True, "keep supervising handles that have reached their targets")
    clamp_step: bool = knob(True, "never step past the target")
    reference: str = knob(
        "auto",
        "reference features of a handle: start or current position; auto: current with a mask",
        choices=("auto", "current", "original"),
    )
    motion: str = knob(
        "forward",
        "which side receives gradients; mirrored: the code before July 2023",
        choices=("forward", "mirrored"),
    )
    disc: str = knob(
        "centred",
        "sampling grid of motion supervision; published: as in the authors' code",
        choices=("published", "centred"),
    )
    reduction: str = knob(
        "mean", "reduction of the motion supervision loss", choices=("mean", "sum")
    )
    norm: str = knob("l2", "norm of feature differences in tracking", choices=("l2", "l1"))
    window: str = knob(
        "closed", "whether the search window includes distance r2", choices=("closed", "open")
    )
    subpixel: bool = knob(True, "track with subpixel accuracy")
    doubt: float = knob(
        0.5,
        "relative feature distance above which tracking searches a wider window; 0: never",
        at_least=0,
    )
    reset_optimiser: bool = knob(True, "reset Adam's moments at the start of a drag")
    stall_steps: int = knob(60, "stop after this many steps without progress; 0: never", at_least=0)
    keep_every: int = knob(5, "save every Nth latent, for films and for going back", at_least=1)
