"""A diffusers model folder before it is loaded: is it one, of a family we know, complete, safe?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from understudy.errors import ModelError

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def check_folder(folder: Path) -> None:
    """Raise ModelError unless folder is a Stable Diffusion 1.x or 2.x folder with all its parts."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise ModelError(
            f"{folder} has no model_index.json, so it is not a diffusers model folder. A single "
            ".safetensors or .ckpt checkpoint must first be converted to a folder by diffusers."
        )
    kind = str(read_json(index).get("_class_name", ""))
    if "XL" in kind or (folder / "text_encoder_2").exists():
        raise ModelError(
            f"{folder} is a Stable Diffusion XL model ({kind}), which is not supported yet. "
            "Use a Stable Diffusion 1.x or 2.x folder."
        )
    if kind and (not kind.startswith("StableDiffusion") or kind.startswith("StableDiffusion3")):
        raise ModelError(f"{folder} holds a {kind}. Use a Stable Diffusion 1.x or 2.x folder.")
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise ModelError(
            f"{folder} lacks {', '.join(f'{part}/' for part in missing)}. A model folder needs "
            f"{', '.join(f'{part}/' for part in PARTS)}. Copy or download it again."
        )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ModelError when it is missing or damaged."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}. Download it again.") from error


def weights_variant(part: Path) -> str | None:
    """None, or "fp16" where a part has only its half precision file.

    Raises ModelError where there are no safetensors at all.
    """
    files = [file.name for file in part.glob("*.safetensors*")]
    if files:
        return "fp16" if all(".fp16." in file for file in files) else None
    pickled = sorted(file.name for file in [*part.glob("*.bin"), *part.glob("*.ckpt")])
    if pickled:
        raise ModelError(
            f"{part} has only pickled weights ({pickled[0]}), which are not read because that can "
            "run code hidden in them. Get the .safetensors files of this model."
        )
    raise ModelError(f"{part} has no weights (*.safetensors). Copy or download it again.")
