"""The settings of `swap`, `sweep` and `explain`, and their presets. Free of torch."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from understudy.errors import InputError
from understudy.settings.families import flows
from understudy.settings.invert import InvertSettings
from understudy.settings.knobs import Settings, knob
from understudy.settings.resolve import PUBLISHED_STEPS, Layers, Value, Values

# Photoswap's three step counts, for a run of PUBLISHED_STEPS: phi, M and A.
COUNTS = ("self_output_steps", "self_map_steps", "cross_map_steps")
REPEATED = ("refine_steps", "appearance_steps", "polish_steps", "layout_steps")
OFFICIAL_FRACTIONS = (0.8, 0.0, 0.6)  # phi, M, A: first example of the authors' notebook


def published_counts(
    steps: int, self_output: float, self_map: float, cross_map: float
) -> dict[str, int]:
    """Photoswap's three step counts from the fractions of the authors' code, scaled to `steps`.

    phi runs through step int(n * phi) inclusive, so that 0 still swaps step 0 and only a negative
    fraction swaps none; M ends at int(n * (M + phi)); A ends at int((n + 1) * A). Products are
    truncated in floating point as there (.3 + .6 of 50 is 44). The code itself has 50 in the
    place of n.
    """
    ends = (
        int(self_output * steps) + 1,
        int(steps * (self_map + self_output)),
        int(cross_map * (steps + 1)),
    )
    return {name: min(max(end, 0), steps) for name, end in zip(COUNTS, ends, strict=True)}


# "best" is ours: the defaults of the class below. It keeps the source's features for fewer steps;
# the blend keeps the background. How many steps is chosen for each picture within the budget
# (swap/schedule_search.py). The inverted noise carries the source's colours and shape; eta 0.8
# replaces a part of it by fresh noise at each step, so that the new subject can take its own.
# Refining draws it once more without the source (swap/refine.py).
# "paper": Gu et al. 2023, section 4. "official": the first example of the authors' notebook, which
# blends latents besides; its step counts are published_counts(steps, *OFFICIAL_FRACTIONS).
_PUBLISHED: dict[str, Value] = {
    "where": "attention",
    "budget": 0,
    "paste": False,
    "eta": 0.0,
    **dict.fromkeys(REPEATED, 0),
}
PRESETS: dict[str, dict[str, Value]] = {
    "best": {},
    "paper": {
        **_PUBLISHED,
        "self_output_steps": 10,
        "self_map_steps": 25,
        "cross_map_steps": 20,
        "blend": False,
    },
    "official": {
        **_PUBLISHED,
        **published_counts(PUBLISHED_STEPS, *OFFICIAL_FRACTIONS),
        "blend": True,
    },
}

# How the photo is inverted. Where the photo's own path is kept outside the subject anyway, direct
# inversion costs nothing and holds it better than tuned embeddings.
INVERSIONS = {"paper": "null-text", "official": "null-text", "best": "direct"}


def _rule(values: Values, given: Values) -> Values:
    """`official` rounds as its authors' code does at any number of steps; a step count that is
    given leaves nothing to search; without a blend nothing says what to paste around."""
    found = dict(values)
    if values["preset"] == "official":
        found |= published_counts(int(values["steps"]), *OFFICIAL_FRACTIONS)
    if any(name in given for name in COUNTS):
        found["budget"] = 0
    if not values["blend"]:
        found["paste"] = False
        found |= dict.fromkeys(REPEATED, 0)
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwapSettings(Settings):
    """Photoswap (Gu et al. 2023): for how many first steps each feature is the source's."""

    filling: ClassVar[Layers] = Layers(
        verb="swap",
        presets={"": PRESETS},
        counts=(*COUNTS, *REPEATED),
        rule=_rule,
    )

    preset: str = knob(
        "best", "a named set of values, which options override", choices=tuple(PRESETS)
    )
    steps: int = knob(
        50, "denoising steps; the photo is inverted with as many", at_least=1, at_most=1000
    )
    guidance: float = knob(7.5, "guidance scale, also of the inversion", at_least=0, at_most=50)
    negative: str = knob("", "negative prompt; with null-text also of the inversion")
    self_output_steps: int | float = knob(
        5,
        "number or share of steps that use the source's self-attention output (phi in the paper)",
        at_least=0,
        share=True,
    )
    self_map_steps: int | float = knob(
        12,
        "number or share of steps that use the source's self-attention map (M in the paper)",
        at_least=0,
        share=True,
    )
    cross_map_steps: int | float = knob(
        10,
        "number or share of steps that use the source's cross-attention map (A in the paper)",
        at_least=0,
        share=True,
    )
    refine_steps: int | float = knob(
        30,
        "number or share of steps that are repeated at the end, from the swapped picture with "
        "fresh noise and without the source (SDEdit); 0: none",
        at_least=0,
        share=True,
    )
    appearance_steps: int | float = knob(
        0,
        "number or share of steps, the first of the repeated ones, in which the new subject's "
        "self-attention attends to pictures of it (cross-image attention); 0: none",
        at_least=0,
        share=True,
    )
    polish_steps: int | float = knob(
        0,
        "number or share of steps repeated once more after candidates that begin with the photo, "
        "whose pose they keep, are drawn; for subjects of different classes, with --budget and "
        "--appearance-steps; 0: no such candidates",
        at_least=0,
        share=True,
    )
    layout_steps: int | float = knob(
        0,
        "number or share of steps repeated after a candidate is drawn from the photo's own noise, "
        "with its attention maps and pictures of the new subject; for subjects of one class, with "
        "--budget and --appearance-steps; 0: no such candidate",
        at_least=0,
        share=True,
    )
    blend: bool = knob(True, "keep the photo's latent outside the subject")
    where: str = knob(
        "subject",
        "how --blend locates the subject: by attention while swapping, by the difference of the "
        "prompts, or by both beforehand (subject)",
        choices=("attention", "difference", "subject"),
    )
    background: str = knob(
        "latents",
        "what keeps the photo around the subject: its latents, or its keys and values in "
        "attention as well (kv-edit; flow models)",
        choices=("latents", "kv-edit"),
    )
    outline: str = knob(
        "auto",
        "with --where subject: whether the new subject keeps the old one's outline; auto: where "
        "both are of one class, as in cat=rex for a cat",
        choices=("auto", "keep", "free"),
    )
    budget: int = knob(
        560,
        "network evaluations for searching --self-output-steps, --self-map-steps and "
        "--cross-map-steps; 0: no search",
        at_least=0,
    )
    eta: float = knob(
        0.8,
        "noise added at each step inside the subject: 0 is DDIM, 1 ancestral sampling",
        at_least=0,
        at_most=1,
    )
    temperature: float = knob(
        1.0, "scale of the noise of --eta; below 1 gives smoother pictures", at_least=0, at_most=2
    )
    noise_seed: int = knob(0, "seed of the noise of --eta", at_least=0)
    paste: bool = knob(True, "paste the photo's own pixels where the picture did not change")
    feather: int = knob(
        4, "width of the transition at the edge of the pasted region, in pixels", at_least=0
    )
    features: float = knob(
        0.5,
        "disk space for caching the photo's attention features, in GB; 0: no cache",
        at_least=0,
    )

    @property
    def keeps_keys(self) -> bool:
        """Whether attention reads the photo's keys and values outside the subject."""
        return self.background == "kv-edit"

    def check_place(self, masked: bool) -> None:
        """Raise InputError where a swap is to be pasted, or its background kept by keys, and
        nothing says what it took."""
        if self.keeps_keys and not (self.blend or masked):
            raise InputError(
                "--background kv-edit needs to know where the subject is: add --blend or a --mask."
            )
        if self.paste and not (self.blend or masked):
            raise InputError("--paste needs to know where the subject is: add --blend or a --mask.")


def sweep_inversion(
    settings: SwapSettings, model: str, method: str | None = None
) -> InvertSettings:
    """The inversion of a sweep: `inversion_for` by null texts, where the model can have them,
    unless a method is named."""
    return inversion_for(settings, model, method or (None if flows(model) else "null-text"))


def inversion_for(settings: SwapSettings, model: str, method: str | None = None) -> InvertSettings:
    """The inversion that a swap wants: as long and as guided; by the method that suits its preset
    unless one is named."""
    usual = "direct" if flows(model) else INVERSIONS[settings.preset]
    given = {"steps": settings.steps, "guidance": settings.guidance}
    method = method or usual
    given |= {"negative": settings.negative} if method == "null-text" else {}
    return InvertSettings.filled({**given, "method": method}, model)
