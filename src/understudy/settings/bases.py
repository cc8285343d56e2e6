"""Published flow models: licence, whether the hub asks to accept it, and what may be trained.

Licences are those of the model cards; follow the card, which may change. Compared with the card or
a copy of it in November 2026: SD 3 medium and 3.5 medium, FLUX.1-dev, FLUX.2 klein 4B and 9B,
Z-Image and its Turbo. The others are from memory. Sizes are of the configurations that were
published with the weights. Free of torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from understudy.errors import InputError
from understudy.files.builtin import BUILT_IN
from understudy.files.reading import read_json
from understudy.settings.checkpoints import is_schnell

APACHE, MIT = "Apache-2.0", "MIT"
STABILITY = "Stability AI Community License (free below 1 M USD of yearly revenue)"
FLUX_NC = "FLUX non-commercial license"

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Base:
    """A published model.

    Attributes:
        hub_id: its repository.
        pipeline: class of its model_index.json.
        licence: of the weights.
        gated: whether the hub wants the licence accepted before the download.
        train_on: the base to train instead of a step-distilled model; "" = trained directly.
        config: sizes of the transformer that differ from the defaults of its class.
        encoders: weights of all text encoders, in billions.
    """

    hub_id: str
    pipeline: str
    licence: str
    gated: bool = False
    train_on: str = ""
    config: Config = field(default_factory=dict[str, Any])
    encoders: float = 0.0


_SD35_M: Config = {
    "sample_size": 128, "num_layers": 24, "num_attention_heads": 24, "attention_head_dim": 64,
    "caption_projection_dim": 1536, "joint_attention_dim": 4096, "pooled_projection_dim": 2048,
    "pos_embed_max_size": 384, "qk_norm": "rms_norm", "dual_attention_layers": tuple(range(13)),
}  # fmt: skip
_SD35_L: Config = {
    **_SD35_M, "num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432,
    "pos_embed_max_size": 192, "dual_attention_layers": (),
}  # fmt: skip
_SD3_M: Config = {**_SD35_M, "pos_embed_max_size": 192, "qk_norm": None,
                  "dual_attention_layers": ()}  # fmt: skip
_KLEIN_4B: Config = {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24,
                     "joint_attention_dim": 7680, "guidance_embeds": False}  # fmt: skip
_KLEIN_9B: Config = {**_KLEIN_4B, "num_layers": 8, "num_single_layers": 24,
                     "num_attention_heads": 32, "joint_attention_dim": 12288}  # fmt: skip
_SD3, _FLUX, _FLUX2 = "StableDiffusion3Pipeline", "FluxPipeline", "Flux2Pipeline"
_KLEIN, _QWEN, _Z = "Flux2KleinPipeline", "QwenImagePipeline", "ZImagePipeline"
# CLIP-L 0.12, CLIP-G 0.69, T5-XXL encoder 4.76, Qwen2.5-VL-7B's text part 7.6, Qwen3-4B 4.0,
# Mistral Small's text part 23.6: billions of weights.
BASES = (
    Base("stabilityai/stable-diffusion-3.5-medium", _SD3, STABILITY, True, "", _SD35_M, 5.58),
    Base("stabilityai/stable-diffusion-3.5-large", _SD3, STABILITY, True, "", _SD35_L, 5.58),
    Base("stabilityai/stable-diffusion-3.5-large-turbo", _SD3, STABILITY, True,
         "stabilityai/stable-diffusion-3.5-large", _SD35_L, 5.58),
    Base("stabilityai/stable-diffusion-3-medium-diffusers", _SD3, STABILITY, True, "", _SD3_M,
         5.58),
    Base("black-forest-labs/FLUX.1-dev", _FLUX, FLUX_NC, True, "", {"guidance_embeds": True}, 4.88),
    Base("black-forest-labs/FLUX.1-schnell", _FLUX, APACHE, True, "black-forest-labs/FLUX.1-dev",
         {}, 4.88),
    Base("black-forest-labs/FLUX.1-Kontext-dev", "FluxKontextPipeline", FLUX_NC, True, "",
         {"guidance_embeds": True}, 4.88),
    Base("lodestones/Chroma1-HD", "ChromaPipeline", APACHE, False, "", {}, 4.76),
    Base("black-forest-labs/FLUX.2-dev", _FLUX2, FLUX_NC, True, "", {}, 23.6),
    Base("black-forest-labs/FLUX.2-klein-base-4B", _KLEIN, APACHE, False, "", _KLEIN_4B, 4.0),
    Base("black-forest-labs/FLUX.2-klein-4B", _KLEIN, APACHE, False,
         "black-forest-labs/FLUX.2-klein-base-4B", _KLEIN_4B, 4.0),
    Base("black-forest-labs/FLUX.2-klein-base-9B", _KLEIN, FLUX_NC, True, "", _KLEIN_9B, 7.6),
    Base("black-forest-labs/FLUX.2-klein-9B", _KLEIN, FLUX_NC, True,
         "black-forest-labs/FLUX.2-klein-base-9B", _KLEIN_9B, 7.6),
    Base("Qwen/Qwen-Image", _QWEN, APACHE, False, "", {}, 7.6),
    Base("Tongyi-MAI/Z-Image", _Z, APACHE, False, "", {}, 4.0),
    Base("Tongyi-MAI/Z-Image-Turbo", _Z, APACHE, False, "Tongyi-MAI/Z-Image", {}, 4.0),
)  # fmt: skip
# Words in a name that mark a step-distilled model, and the base of its family.
DISTILLED = {
    "schnell": "black-forest-labs/FLUX.1-dev",
    "z-image-turbo": "Tongyi-MAI/Z-Image",
    "large-turbo": "stabilityai/stable-diffusion-3.5-large",
    "klein-4b": "black-forest-labs/FLUX.2-klein-base-4B",
    "klein-9b": "black-forest-labs/FLUX.2-klein-base-9B",
}
# What the names of checkpoint files say beside the model: "flux1-dev-fp8", "z_image_turbo_bf16".
_PRECISION = re.compile(r"(bf16|fp16|fp32|fp8(e4m3fn|e5m2)?|diffusers|inclclips(t5xxlfp(8|16))?)$")


def base_named(model: str) -> Base | None:
    """The published model of a hub id, or of a folder or checkpoint file whose name or index says
    it."""
    name = model.rstrip("/").lower()
    said = _said(Path(model).expanduser()).lower()
    ends = (name.rsplit("/", 1)[-1], said.rsplit("/", 1)[-1])
    file = _letters(Path(name).stem) if name.endswith(".safetensors") else ""
    for base in BASES:
        end = base.hub_id.lower().rsplit("/", 1)[-1]
        if base.hub_id.lower() in (name, said) or end in ends or _letters(end) == file:
            return base
    return None


def _letters(name: str) -> str:
    """Letters and digits of a model's name, without its precision: "sd3.5_large_fp8" and
    "stable-diffusion-3.5-large" are alike."""
    plain = re.sub(r"[^a-z0-9]", "", name)
    while (short := _PRECISION.sub("", plain)) != plain:
        plain = short
    return re.sub(r"^sd3", "stablediffusion3", plain)


def trained_instead(model: str) -> str:
    """The base to train in place of a step-distilled model; "" for one that can be trained.

    Told by the hub id, by the name of the folder, and by what the folder says: FLUX.2 klein says
    is_distilled, a FLUX.1 without a guidance input is schnell.
    """
    base = base_named(model)
    if base is not None:
        return base.train_on
    folder = Path(model).expanduser()
    index = _object(folder / "model_index.json")
    if index.get("is_distilled"):
        return "black-forest-labs/FLUX.2-klein-base-4B"
    if index.get("_class_name") == _FLUX:
        network = _object(folder / "transformer" / "config.json")
        return "" if network.get("guidance_embeds") else "black-forest-labs/FLUX.1-dev"
    if folder.suffix == ".safetensors" and is_schnell(folder):
        return "black-forest-labs/FLUX.1-dev"
    said = folder.name.lower().replace("_", "-")
    return next((known for word, known in DISTILLED.items() if word in said), "")


def check_trainable(model: str) -> None:
    """Raise InputError, naming the base to use, for a step-distilled model.

    Training one directly undoes the distillation: pictures of few steps become blurred, and those
    of many steps were never good.
    """
    instead = trained_instead(model)
    if instead:
        raise InputError(
            f"{model} is step-distilled and cannot be learnt on. Learn on {instead}; the concept "
            "can be used with the distilled model afterwards."
        )


def licence_of(model: str) -> str:
    """The licence of a model's weights, as far as its name or folder tells; "" = not known."""
    if model in BUILT_IN:
        return "Apache-2.0"
    base = base_named(model)
    return base.licence if base else ""


def _said(folder: Path) -> str:
    """The hub id that a folder's index remembers."""
    return str(_object(folder / "model_index.json").get("_name_or_path", ""))


def _object(file: Path) -> dict[str, Any]:
    if not os.path.lexists(file):
        return {}
    try:
        found: Any = read_json(file)
    except Exception:  # loading the model says what is wrong with it
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
