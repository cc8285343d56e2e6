"""A diffusers model folder before it is loaded: its family, missing parts, native size."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

from understudy.errors import ModelError, NoSuchModel
from understudy.files import reading
from understudy.models.family import FAMILIES, SD, SDXL, Family, family_named, tokenizer_of
from understudy.models.network_configs import network_config
from understudy.models.weight_files import entries

# Folders with weights, of all families; denoising networks first.
WEIGHTS = ("unet", "transformer", *sorted({p for f in FAMILIES for p in f.networks[1:]}))


def check_folder(folder: Path) -> Family:
    """The family of a model folder. Raises ModelError where it is unknown or a part is missing."""
    family = family_in(folder)
    encoders = encoders_in(folder, family)
    wanted = (family.denoiser, "vae", "scheduler", *encoders, *map(tokenizer_of, encoders))
    missing = [part for part in wanted if not (folder / part).is_dir()]
    if missing:
        raise ModelError(
            f"{folder} lacks {', '.join(f'{part}/' for part in missing)}. A {family.name} folder "
            f"needs {', '.join(f'{part}/' for part in wanted)}. Copy or download it again."
        )
    return family


def family_in(folder: Path) -> Family:
    """The family of a model folder, complete or not. Raises ModelError where it is unknown."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise NoSuchModel(
            f"{folder} has no model_index.json, so it is not a diffusers model folder. Give such a "
            "folder, or a single .safetensors or .ckpt checkpoint."
        )
    kind = str(read_json(index).get("_class_name", ""))
    family = family_named(kind)
    if family is None:
        known = ", ".join(one.name for one in FAMILIES)
        raise ModelError(
            f"{folder} holds a {kind[:60]}, which is not supported here. Supported: {known}."
        )
    # Folders written by training scripts name the plain pipeline for XL models, too.
    return SDXL if family is SD and (folder / "text_encoder_2").is_dir() else family


def encoders_in(folder: Path, family: Family) -> tuple[str, ...]:
    """The text encoders that a folder has or must have: an optional one is null in the index."""
    index = read_json(folder / "model_index.json")

    def absent(encoder: str) -> bool:
        said = index.get(encoder)
        return encoder in family.optional and (said is None or said == [None, None])

    return tuple(encoder for encoder in family.encoders if not absent(encoder))


def empty_is_zero(folder: Path) -> bool:
    """Whether the empty prompt is all zeros to this model, as XL's index says of itself."""
    index = read_json(folder / "model_index.json")
    return bool(index.get("force_zeros_for_empty_prompt", False))


def native_size(folder: Path) -> tuple[int, int]:
    """Height and width in pixels of the pictures a model was trained on, by its configurations."""
    if (folder / "transformer").is_dir():
        return _native_size_of_flow(folder)
    side = network_config(folder, "unet")["sample_size"]
    levels = network_config(folder, "vae").get("block_out_channels", [0])
    height, width = (side, side) if isinstance(side, int) else side
    return height << (len(levels) - 1), width << (len(levels) - 1)


def _native_size_of_flow(folder: Path) -> tuple[int, int]:
    """The same of a flow transformer; 1024 where neither network nor autoencoder says a size."""
    vae = read_json(folder / "vae" / "config.json")
    cells = read_json(folder / "transformer" / "config.json").get("sample_size")
    side: Any = vae.get("sample_size", 1024)
    if isinstance(cells, int):
        side = cells << (len(vae.get("block_out_channels") or [0]) - 1)
    side = side if isinstance(side, int) and 0 < side <= 65_536 else 1024
    return side, side


def parameter_counts(folder: Path) -> dict[str, int]:
    """How many weights each network has, read from the headers of its files alone."""
    return {
        part: sum(math.prod(entry.shape) for entry in entries(folder / part).values())
        for part in WEIGHTS
        if (folder / part).is_dir()
    }


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ModelError when it is missing or damaged."""
    found = reading.read_json(path, error=ModelError)
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no JSON object. Copy or download it again.")
    return cast("dict[str, Any]", found)
