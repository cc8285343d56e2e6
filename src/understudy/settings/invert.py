"""The settings of `invert`. Free of torch."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Protocol, runtime_checkable

from understudy.errors import InputError
from understudy.settings.knobs import Settings, knob
from understudy.settings.resolve import Layers, Value

DIFFUSION_METHODS = ("null-text", "ddim", "negative-prompt")
FLOW_METHODS = ("euler", "midpoint", "fireflow", "uni-inv", "implicit", "rf-inversion")
METHODS = (*DIFFUSION_METHODS, "direct", *FLOW_METHODS)

# implicit: iterations of a step, and the residual at which it is solved. rf-inversion: Rout et al.
# 2024, arXiv:2410.10792; its authors' FLUX example runs 28 steps.
_METHODS: dict[str, dict[str, Value]] = {
    **{method: {} for method in METHODS},
    "implicit": {"inner_steps": 30, "epsilon": 1e-6},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class InvertSettings(Settings):
    """Photo to what the model can replay. Defaults: null-text inversion as its authors run it."""

    filling: ClassVar[Layers] = Layers(verb="invert", methods=_METHODS)

    method: str = knob(
        "null-text",
        "inversion method; flow models take direct and the methods listed after it",
        choices=METHODS,
    )
    steps: int = knob(50, "inversion steps; a swap must use as many", at_least=1, at_most=1000)
    guidance: float = knob(7.5, "guidance scale of the reconstruction", at_least=0, at_most=50)
    negative: str = knob(
        "", "null-text: negative prompt; the embeddings are tuned from it, for edits that have it"
    )
    inner_steps: int = knob(
        10,
        "null-text: optimiser steps per timestep; implicit: iterations per step",
        at_least=0,
        at_most=1000,
    )
    epsilon: float = knob(
        1e-5,
        "null-text: loss at which the inner optimisation stops; implicit: relative residual",
        at_least=0,
    )
    learning_rate: float = knob(
        1e-2, "null-text: Adam's learning rate at the first timestep", at_least=0
    )
    rf_gamma: float = knob(
        0.5, "rf-inversion: control towards Gaussian noise (gamma), 0 to 1", at_least=0, at_most=1
    )
    rf_eta: float = knob(
        0.9, "rf-inversion: control towards the photo when sampling (eta)", at_least=0, at_most=1
    )
    rf_stop: float = knob(
        0.25, "rf-inversion: share of the sampling steps with that control", at_least=0, at_most=1
    )
    rf_seed: int = knob(0, "rf-inversion: seed of the Gaussian noise", at_least=0)


@runtime_checkable
class Inverted(Protocol):
    """An inversion, or the settings of one that is to be made."""

    @property
    def method(self) -> str:
        """One of METHODS."""
        ...

    @property
    def negative(self) -> str:
        """The negative prompt that null-text inversion tunes from."""
        ...


def check_negative(negative: str, inverted: Inverted) -> None:
    """Refuse a negative prompt where the inversion leaves no place for it.

    Negative-prompt inversion reads the photo's prompt in the unconditional row, and null-text
    inversion embeddings that were tuned from one negative prompt; with another in their place
    neither gives the photo back. Raises InputError.
    """
    if negative and inverted.method == "negative-prompt":
        raise InputError(
            "negative-prompt inversion uses the photo's prompt as negative prompt and takes no "
            'other. Invert by another method, or use --negative "".'
        )
    if inverted.method == "null-text" and inverted.negative != negative:
        raise InputError(
            f"the photo was inverted for --negative {inverted.negative!r}, but the edit has "
            f"--negative {negative!r}. Use the same, or invert again."
        )
