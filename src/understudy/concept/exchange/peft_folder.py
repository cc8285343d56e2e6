"""LoRA folders: PEFT's (adapter_config.json and adapter_model.safetensors), for one network or in
a sub-folder for each, and diffusers' (pytorch_lora_weights.safetensors)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from understudy.concept.exchange.adapter_scale import PARTS, Scales, settings_by_part
from understudy.concept.exchange.lora_file import LoraFile, read_lora
from understudy.errors import ConceptError
from understudy.files.reading import read_json
from understudy.untrusted.checkpoint_file import read_file

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
DIFFUSERS = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")
# The class that PEFT wrapped, which tells XL's two text encoders apart.
CLASSES = {
    "UNet2DConditionModel": "unet",
    **{
        f"{family}Transformer2DModel": "transformer"
        for family in ("SD3", "Flux", "Flux2", "Chroma", "QwenImage", "ZImage")
    },
    "CLIPTextModel": "text_encoder",
    "CLIPTextModelWithProjection": "text_encoder_2",
}


def is_peft_folder(folder: Path) -> bool:
    """Whether a folder is an adapter, or holds one for each network, and is no model."""
    return not (folder / "model_index.json").exists() and bool(_adapters(folder))


def lora_in(folder: Path) -> Path | None:
    """The LoRA file of a folder that diffusers' save_lora_weights wrote, None if it is none."""
    if (folder / "model_index.json").exists():
        return None
    return next((folder / name for name in DIFFUSERS if (folder / name).is_file()), None)


def read_peft_folder(folder: Path, weights: Mapping[str, Tensor]) -> LoraFile:
    """What the adapters of a folder change. Raises ConceptError as read_lora does."""
    whole = LoraFile({}, {})
    for place in _adapters(folder):
        told = read_json(place / CONFIG, error=ConceptError)
        if not isinstance(told, dict):
            raise ConceptError(f"{place / CONFIG} holds no JSON object.")
        settings = cast("dict[str, Any]", told)
        file = next((place / name for name in WEIGHTS if (place / name).is_file()), None)
        if file is None:
            raise ConceptError(f"{place} has no {WEIGHTS[0]}. Copy or download it again.")
        content, notes = read_file(file)
        part = place.name if place != folder else _part_of(settings)
        if part is not None and not any(name.startswith(f"{part}.") for name in weights):
            raise ConceptError(f"{place} is a LoRA for {part}, which this model does not have.")
        scales = Scales(settings_by_part(settings, str(place / CONFIG)))
        read = read_lora(content, notes, weights, str(file), scales=scales, part=part)
        if twice := (whole.pairs.keys() | whole.differences.keys()) & (
            read.pairs.keys() | read.differences.keys()
        ):
            raise ConceptError(f"{folder} changes the weight {sorted(twice)[0]} twice.")
        whole = LoraFile(
            whole.pairs | read.pairs,
            whole.differences | read.differences,
            whole.left_out + read.left_out,
        )
    return whole


def _adapters(folder: Path) -> list[Path]:
    places = (folder, *(folder / part for part in PARTS))
    return [place for place in places if (place / CONFIG).is_file()]


def _part_of(settings: Mapping[str, Any]) -> str | None:
    """The network that an adapter was made for, by the class it wrapped."""
    wrapped = settings.get("auto_mapping")
    kind = (
        cast("dict[str, Any]", wrapped).get("base_model_class") if isinstance(wrapped, dict) else 0
    )
    return CLASSES.get(str(kind))
