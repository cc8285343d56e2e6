"""The settings of `edit`, and its presets. Free of torch."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from understudy.settings.families import flows
from understudy.settings.invert import Inverted, InvertSettings, check_negative
from understudy.settings.knobs import Settings, knob
from understudy.settings.resolve import Layers, Value, Values

EDIT_METHODS = ("p2p", "pnp", "hiper", "flowedit", "flowalign", "kv-edit", "instruct")

# p2p: the paper's text names no numbers, so "paper" holds those of the authors' first notebook, for
# generated pictures, and "official" those of their notebook for real photos (null-text inversion).
# pnp: Tumanyan et al. 2023, section 4, and the authors' second code. hiper: Han et al. 2023, and
# the factor on the tail in the authors' code. "best" is what each method starts from: the official
# values, unless something else suits the model. Step counts are for PUBLISHED_STEPS steps.
NEGATIVE = "ugly, blurry, black, low res, unrealistic"
# flowedit: Kulikov et al. 2024, arXiv:2412.08629, as its authors run SD3. flowalign: Kim et al.
# 2025, arXiv:2505.23145. kv-edit: Zhu et al. 2025, arXiv:2502.17363, as its authors run FLUX: 24 of
# 28 steps. instruct: the model card of FLUX.1 Kontext; other models have their own.
_COUNTS = ("cross_map_steps", "self_map_steps", "feature_steps", "n_max", "n_min")
_P2P: dict[str, Value] = {"cross_map_steps": 40, "self_map_steps": 20, "self_map_side": 16}
_PNP: dict[str, Value] = {"self_map_steps": 25, "feature_steps": 40, "inversion_steps": 999}
_HIPER: dict[str, Value] = {"cross_map_steps": 0, "self_map_steps": 0, "tail_scale": 1.0}
_FLOW: dict[str, Value] = {"n_max": 33, "guidance": 13.5, "source_guidance": 3.5}
_KV_EDIT: dict[str, Value] = {"n_max": 43, "guidance": 5.5, "source_guidance": 1.5}
_INSTRUCT: dict[str, Value] = {"steps": 28, "guidance": 2.5}
_METHODS: dict[str, dict[str, Value]] = {
    "p2p": {**_P2P, "self_map_steps": 25, "self_map_side": 32, "blend_start": 0.2},
    "pnp": {**_PNP, "negative": NEGATIVE},
    "hiper": {**_HIPER, "tail_scale": 0.8},
    "flowedit": _FLOW,
    "flowalign": {**_FLOW, "source_guidance": 1.0},
    "kv-edit": _KV_EDIT,
    "instruct": _INSTRUCT,
}
PRESETS: dict[str, dict[str, dict[str, Value]]] = {
    "p2p": {"best": {}, "paper": {**_P2P, "blend_start": 0.0}, "official": _METHODS["p2p"]},
    "pnp": {"best": {}, "paper": {**_PNP, "negative": ""}, "official": _METHODS["pnp"]},
    "hiper": {"best": {}, "paper": _HIPER, "official": _METHODS["hiper"]},
    "flowedit": {"best": {}, "paper": _METHODS["flowedit"], "official": _METHODS["flowedit"]},
    "flowalign": {"best": {}, "paper": _METHODS["flowalign"], "official": _METHODS["flowalign"]},
    "kv-edit": {"best": {}, "paper": _KV_EDIT, "official": _KV_EDIT},
    "instruct": {"best": {}, "paper": _INSTRUCT, "official": _INSTRUCT},
}


def _rule(values: Values, given: Values) -> Values:
    """Without guidance a negative prompt changes nothing, so a preset's is left out."""
    return {**values, "negative": ""} if values["guidance"] == 1 else values


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditSettings(Settings):
    """A photo edited by text: prompt-to-prompt, plug-and-play (pnp), HiPer, FlowEdit, FlowAlign,
    KV-Edit, or an instruction to a model that reads pictures (instruct)."""

    filling: ClassVar[Layers] = Layers(
        verb="edit", methods=_METHODS, presets=PRESETS, counts=_COUNTS, rule=_rule
    )

    method: str = knob("p2p", "editing method", choices=EDIT_METHODS)
    preset: str = knob(
        "best",
        "a named set of values, which options override",
        choices=("best", "paper", "official"),
    )
    steps: int = knob(
        50,
        "denoising steps; p2p, hiper: the photo is inverted with as many",
        at_least=1,
        at_most=1000,
    )
    guidance: float = knob(
        7.5, "guidance scale; with null-text also of the inversion", at_least=0, at_most=50
    )
    alignment: str = knob(
        "auto",
        "p2p: replace words, or refine by adding words; auto: replace if the counts are equal",
        choices=("auto", "replace", "refine"),
    )
    cross_map_steps: int = knob(
        40, "p2p, hiper: steps that use the source's cross-attention map", at_least=0
    )
    self_map_steps: int = knob(25, "steps that use the source's self-attention map", at_least=0)
    self_map_side: int = knob(
        32, "p2p, hiper: largest resolution of those self-attention maps, 16 or 32", at_least=1
    )
    feature_steps: int = knob(40, "pnp: steps that use the source's features", at_least=0)
    negative: str = knob("", "p2p, pnp, hiper, flowedit, kv-edit, instruct: negative prompt")
    inversion_steps: int = knob(
        0, "pnp: steps of the inversion; 0: as many as --steps", at_least=0, at_most=1000
    )
    blend_start: float = knob(
        0.2, "share of the steps before blending starts", at_least=0, at_most=1
    )
    blend_threshold: float = knob(
        0.3,
        "attention threshold of the blended words, as a share of the maximum",
        at_least=0,
        at_most=1,
    )
    preserve_threshold: float = knob(
        0.3,
        "attention threshold of the words of --preserve, as a share of the maximum",
        at_least=0,
        at_most=1,
    )
    eta: float = knob(
        0.0,
        "p2p, hiper: noise added at each step: 0 is DDIM, 1 ancestral sampling",
        at_least=0,
        at_most=1,
    )
    temperature: float = knob(
        1.0, "scale of the noise of --eta; below 1 gives smoother pictures", at_least=0, at_most=2
    )
    noise_seed: int = knob(
        0,
        "seed of the noise of --eta, --re-init, and of flowedit, flowalign, instruct",
        at_least=0,
    )
    source_guidance: float = knob(
        1.0, "flowedit, kv-edit: guidance scale of the source prompt", at_least=0, at_most=50
    )
    n_max: int = knob(
        33,
        "flowedit, flowalign, kv-edit: number of last steps to run; more steps change more",
        at_least=0,
    )
    n_min: int = knob(0, "flowedit: number of last steps that sample the target alone", at_least=0)
    n_avg: int = knob(1, "flowedit: noise samples averaged per step", at_least=1, at_most=100)
    re_init: bool = knob(
        False, "kv-edit: start the region from fresh noise, to remove or replace what is there"
    )
    attn_mask: bool = knob(
        False, "kv-edit: hide the region from the background; with --re-init, to remove things"
    )
    attn_scale: float = knob(
        0.0,
        "kv-edit: added to the attention logits of the background; a larger value makes the region "
        "attend more to it",
        at_least=-20,
        at_most=20,
    )
    tail_scale: float = knob(
        0.0,
        "factor on the learnt embeddings; 0: the factor they were learnt with",
        at_least=0,
        at_most=10,
    )

    def check_inversion(self, inverted: Inverted) -> None:
        """Raise InputError for an inversion that leaves no place for the negative prompt.

        Plug-and-play samples no source: beside a negative prompt it reads no tuned embeddings.
        """
        if self.method != "pnp" or inverted.method != "null-text":
            check_negative(self.negative, inverted)


# What inverts the photo for each method.
INVERSIONS = {
    "p2p": "null-text",
    "pnp": "ddim",
    "hiper": "ddim",
    "flowedit": "direct",
    "flowalign": "direct",
    "kv-edit": "direct",
    "instruct": "direct",
}


def inversion_for(settings: EditSettings, model: str, method: str | None = None) -> InvertSettings:
    """The inversion that an edit wants: as guided; as long, unless pnp asks for another length; by
    the way that suits its method and model unless one is named."""
    usual = "direct" if flows(model) else INVERSIONS[settings.method]
    steps = settings.inversion_steps if settings.method == "pnp" else 0
    given = {"steps": steps or settings.steps, "guidance": settings.guidance}
    method = method or usual
    given |= {"negative": settings.negative} if method == "null-text" else {}
    return InvertSettings.filled({**given, "method": method}, model)
