"""LoRA folders: PEFT's (adapter_config.json and adapter_model.safetensors), for one network or in
a sub-folder for each, and diffusers' (pytorch_lora_weights.safetensors)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from understudy.concept.exchange.adapter_scale import PARTS, Scales, settings_by_part
from understudy.concept.exchange.dialects import in_shape
from understudy.concept.exchange.lora import LowRank
from understudy.concept.exchange.lora_file import LoraFile, read_lora
from understudy.concept.exchange.names import split_weight
from understudy.errors import ConceptError
from understudy.files.atomic import staging, write_json
from understudy.files.reading import read_json
from understudy.files.tensors import save_tensors
from understudy.models.interface import DiffusionModel, denoiser_part
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


def read_peft_folder(
    folder: Path, weights: Mapping[str, Tensor]
) -> tuple[LoraFile, dict[str, str]]:
    """What the adapters of a folder change, and the notes in their headers. Raises ConceptError as
    read_lora does."""
    whole, said = LoraFile({}, {}), dict[str, str]()
    for place in _adapters(folder):
        told = read_json(place / CONFIG, error=ConceptError)
        if not isinstance(told, dict):
            raise ConceptError(f"{place / CONFIG} holds no JSON object.")
        settings = cast("dict[str, Any]", told)
        file = next((place / name for name in WEIGHTS if (place / name).is_file()), None)
        if file is None:
            raise ConceptError(f"{place} has no {WEIGHTS[0]}. Copy or download it again.")
        content, notes = read_file(file)
        said |= notes
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
    return whole, said


def write_peft_folder(
    folder: Path,
    pairs: LowRank,
    model: DiffusionModel,
    notes: Mapping[str, str],
    dtype: torch.dtype,
) -> Path:
    """Write a LoRA as PEFT's `PeftModel.from_pretrained` reads it: that of the denoising network in
    the folder itself, those of several networks each in a sub-folder with the network's name.

    Raises OutputError where it cannot be written.
    """
    modules = model.trainable_modules()
    parts: dict[str, LowRank] = {}
    for weight, pair in pairs.items():
        part, path = split_weight(weight)
        parts.setdefault(part, {})[path] = pair
    alone = list(parts) == [denoiser_part(model)]
    with staging(folder) as staged:
        for part, own in sorted(parts.items()):
            place = staged if alone else staged / part
            place.mkdir(exist_ok=True)
            write_json(place / CONFIG, _settings(own, modules[part], model.name))
            tensors: dict[str, Tensor] = {}
            for path, (a, b, alpha) in own.items():
                weight = cast(Any, modules[part].get_submodule(path)).weight
                down, up = in_shape(a, b * (alpha / len(a)), tuple(weight.shape))
                name = f"base_model.model.{path}"
                tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
            whole = {name: one.to("cpu", dtype) for name, one in tensors.items()}
            save_tensors(place / WEIGHTS[0], whole, dict(notes))
    return folder


def _settings(pairs: LowRank, module: nn.Module, base: str) -> dict[str, Any]:
    """adapter_config.json: scales are in the matrices, so alpha is the rank of each layer."""
    ranks = {path: len(a) for path, (a, _, _) in pairs.items()}
    usual = max(sorted(set(ranks.values())), key=list(ranks.values()).count)
    odd = {path: rank for path, rank in ranks.items() if rank != usual}
    kind = type(module)
    return {
        "peft_type": "LORA",
        "auto_mapping": {"base_model_class": kind.__name__, "parent_library": kind.__module__},
        "base_model_name_or_path": base,
        "inference_mode": True,
        "bias": "none",
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": odd,
        "alpha_pattern": odd,
        "target_modules": sorted(ranks),
    }


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
