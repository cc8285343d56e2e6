"""model_index.json and the configurations of a folder that is written: what diffusers and its
training scripts look for, and nothing about parts that are not there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from understudy.models.family import SDXL

# Library and class of every part of a U-Net folder; XL has all of them.
CLASSES = {
    "unet": ("diffusers", SDXL.network),
    "vae": ("diffusers", SDXL.autoencoder),
    "scheduler": ("diffusers", "DDIMScheduler"),
    **{part: ("transformers", kind) for part, kind in (SDXL.encoders | SDXL.tokenizers).items()},
}
ABSENT = ("safety_checker", "feature_extractor", "image_encoder")
XL = "StableDiffusionXLPipeline"
# The files of a folder's parts that are not weights.
SETTINGS = ("config.json", "scheduler_config.json", "vocab.json", "merges.txt", "tokenizer.json",
            "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")  # fmt: skip


def index_of(folder: Path, told: Mapping[str, Any], scheduler: str | None = None) -> dict[str, Any]:
    """The index of a folder that holds these parts; told: the index it is made from, if any.

    scheduler: the class that its configuration names.
    """
    parts = {part: list(pair) for part, pair in CLASSES.items() if (folder / part).is_dir()}
    xl = "text_encoder_2" in parts
    kind = str(told.get("_class_name") or (XL if xl else "StableDiffusionPipeline"))
    index: dict[str, Any] = {"_class_name": kind}
    if xl:
        index["force_zeros_for_empty_prompt"] = told.get("force_zeros_for_empty_prompt", not told)
    else:
        index["requires_safety_checker"] = False
    if scheduler:
        parts["scheduler"] = ["diffusers", scheduler]
    none: list[None] = [None, None]
    absent = [part for part in ABSENT if not (xl and part == "safety_checker")]
    return {**index, **dict.fromkeys(absent, none), **parts}


def config_of(
    part: str, name: str, told: Mapping[str, Any], dtype: torch.dtype | None
) -> dict[str, Any]:
    """A part's settings file as it is written; dtype: of the weights beside it.

    transformers loads a text encoder in the precision that its configuration says, and training
    scripts look up its class there.
    """
    config = {key: value for key, value in told.items() if key != "_name_or_path"}
    if part.startswith("text_encoder") and name == "config.json":
        config["architectures"] = [CLASSES[part][1]]
        if dtype is not None:
            said = str(dtype).removeprefix("torch.")
            config |= {"dtype": said, "torch_dtype": said}
    if name == "tokenizer_config.json":
        config["tokenizer_class"] = "CLIPTokenizer"
    return config
