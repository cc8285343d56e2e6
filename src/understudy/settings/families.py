"""What suits the families of flow models, where a model's own file says nothing. Free of torch.

A family is told by the pipeline class in model_index.json, or by the hub id. Steps and guidance are
the defaults of the family's diffusers pipeline, or of the model's card where it differs. Guidance
is u + g (c - u) throughout: what Z-Image's pipeline calls 5 is 6 here. Step-distilled models take
few steps and no guidance. FlowEdit's numbers are its authors' for SD3 and FLUX. Shares of steps
count noise removed, not steps: see `transfer/schedule.py`. Photoswap's paper ends phi, M and A at
noise-to-signal ratios 4.7, 1.5 and 2.1, which are sigma 0.82, 0.60 and 0.68.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from understudy.files.builtin import builtin_folder
from understudy.files.reading import read_json
from understudy.settings.bases import base_named, trained_instead
from understudy.settings.checkpoints import flow_family_of_file, names_in
from understudy.settings.resolve import Value, Values

MAX_BYTES = 100_000
XL_TEXT = "conditioner.embedders."  # text encoders in a checkpoint file of Stable Diffusion XL
_PAPER: Values = {"self_output_steps": 0.18, "self_map_steps": 0.40, "cross_map_steps": 0.32}
_SWAP: Values = {
    "self_output_steps": 0.07,
    "self_map_steps": 0.18,
    "cross_map_steps": 0.32,
    "budget": 0,
    "eta": 0.0,
    "refine_steps": 0,
}
_P2P: Values = {"self_map_steps": 10, "self_map_side": 256}


# LoRA: the layers that the families' trainers adapt (diffusers' and ai-toolkit's), rank 16.
_ATTENTION = "to_q,to_k,to_v,to_out.0"
_JOINT = f"{_ATTENTION},add_q_proj,add_k_proj,add_v_proj,to_add_out"
_FLUX = f"{_JOINT},ff.net.0.proj,ff.net.2,ff_context.net.0.proj,ff_context.net.2"
_FLUX2 = f"{_JOINT},attn.to_qkv_mlp_proj,attn.to_out"


def _family(
    steps: int, guidance: float, targets: str = _ATTENTION, **more: Values
) -> dict[str, Values]:
    """The values of one family. Counts of steps are for 50 steps."""
    run: dict[str, Value] = {"steps": steps, "guidance": guidance}
    return {
        "generate": {**run, "eta": 0.0},
        "invert": {"steps": steps, "method": "direct", "guidance": guidance},
        "swap": {**_SWAP, **run},
        "swap --preset paper": _PAPER,
        "edit p2p": {**_P2P, **run},
        "edit pnp": {**_P2P, **run, "inversion_steps": 0, "feature_steps": 10, "negative": ""},
        "edit hiper": run,
        "edit kv-edit": {**run, "source_guidance": 1.0},
        "edit instruct": run,
        "learn": {"prior_steps": steps, "prior_guidance": guidance, "train_text_encoder": False},
        "learn lora": {"targets": targets, "rank": 16, "steps": 1000},
        "learn pivotal": {"targets": targets, "rank": 16},
        **more,
    }


_FLUX_EDIT: Values = {"steps": 28, "n_max": 43, "guidance": 5.5, "source_guidance": 1.5}
_FLUX_EDITS: dict[str, Values] = {"edit flowedit": _FLUX_EDIT, "edit kv-edit": _FLUX_EDIT}
FAMILIES: Mapping[str, Mapping[str, Values]] = {
    "StableDiffusion3": _family(28, 7.0, _JOINT),
    "Flux2": _family(50, 4.0, _FLUX2, **_FLUX_EDITS),
    "Flux": _family(28, 3.5, _FLUX, **_FLUX_EDITS),
    "Chroma": _family(35, 5.0),
    "QwenImage": _family(50, 4.0),
    "ZImage": _family(50, 6.0),
}
# Steps and guidance of published models whose cards differ from the pipeline's defaults.
CARDS = {
    "stabilityai/stable-diffusion-3.5-medium": (40, 4.5),
    "stabilityai/stable-diffusion-3.5-large": (28, 3.5),
    "black-forest-labs/FLUX.1-Kontext-dev": (28, 2.5),
}
# Steps of step-distilled models; they are sampled without guidance.
FEW_STEPS = {"StableDiffusion3": 4, "Flux2": 4, "Flux": 4, "ZImage": 9}
_UNGUIDED: Values = {"guidance": 1.0, "source_guidance": 1.0}


def _distilled(steps: int) -> dict[str, Values]:
    plain: Values = {"steps": steps, "guidance": 1.0}
    edits = {f"edit {method}": plain for method in ("p2p", "pnp", "hiper", "instruct")}
    flows = {f"edit {method}": {**_UNGUIDED, "steps": steps, "n_max": 50}
             for method in ("flowedit", "flowalign", "kv-edit")}  # fmt: skip
    return {"generate": plain, "invert": plain, "swap": plain, **edits, **flows}


# Parts of hub ids, in lower case, in the order in which they are looked for.
HUB_IDS = {
    "stable-diffusion-3": "StableDiffusion3",
    "flux.2": "Flux2",
    "flux": "Flux",
    "chroma": "Chroma",
    "qwen-image": "QwenImage",
    "z-image": "ZImage",
}


def flow_family(model: str) -> str | None:
    """The flow family of a model's name, folder, file or hub id; None for any other model."""
    folder = builtin_folder(model) or (Path(model).expanduser() if model else None)
    if folder is not None and os.path.lexists(folder):
        return (
            flow_family_of_file(folder) if folder.suffix == ".safetensors" else _of_folder(folder)
        )
    known = (family for part, family in HUB_IDS.items() if part in model.lower())
    return next(known, None) if "/" in model else None


def flows(model: str) -> bool:
    """Whether a model is known to be a flow model before it is loaded."""
    return flow_family(model) is not None


def is_xl(model: str) -> bool:
    """Whether a model is known to be a Stable Diffusion XL before it is loaded."""
    folder = Path(model).expanduser()
    if os.path.lexists(folder):
        if folder.suffix == ".safetensors":
            return any(name.startswith(XL_TEXT) for name in names_in(folder))
        return _class_name(folder).startswith("StableDiffusionXL")
    return "/" in model and "xl" in model.rsplit("/", 1)[-1].lower()


def family_suits(model: str) -> Mapping[str, Values]:
    """The values that suit a published model or its family; empty for other models."""
    family = flow_family(model)
    if family is None:
        return {}
    general, base = FAMILIES[family], base_named(model)
    own: Mapping[str, Values] = {}
    if trained_instead(model):
        own = _distilled(FEW_STEPS.get(family, 4))
    elif base is not None and base.hub_id in CARDS:
        steps, guidance = CARDS[base.hub_id]
        run: Values = {"steps": steps, "guidance": guidance}
        edits = ("edit p2p", "edit pnp", "edit hiper", "edit kv-edit", "edit instruct")
        verbs = ("generate", "invert", "swap", *edits)
        own = {**dict.fromkeys(verbs, run),
               "learn": {"prior_steps": steps, "prior_guidance": guidance}}  # fmt: skip
    return {verb: {**general.get(verb, {}), **own.get(verb, {})} for verb in (*general, *own)}


def _of_folder(folder: Path) -> str | None:
    kind = _class_name(folder)
    return next((family for family in FAMILIES if kind.startswith(family)), None)


def _class_name(folder: Path) -> str:
    """The pipeline's class of a model's folder; "" where none is named."""
    index = folder / "model_index.json"
    if not index.is_file():
        return ""
    try:
        body: Any = read_json(index, most=MAX_BYTES)
    except Exception:  # loading the model says what is wrong with it
        return ""
    return str(cast(dict[str, Any], body).get("_class_name", "")) if isinstance(body, dict) else ""
