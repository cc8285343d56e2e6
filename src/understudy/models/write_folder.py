"""A model as a diffusers folder, with the weights it has now: what any diffusers program loads."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from understudy.errors import OutputError
from understudy.files.atomic import check_folder_writable, replacing
from understudy.files.tensors import save_tensors
from understudy.models.unet.stable_diffusion import StableDiffusion

_WEIGHTS = re.compile(r".*(\.safetensors|\.safetensors\.index\.json|\.bin|\.ckpt|\.msgpack)")


def write_folder(model: StableDiffusion, target: Path, *, dtype: torch.dtype | None = None) -> Path:
    """Write the model as it is now, concepts worn included; weights as `dtype`, or as they are.

    model_index.json is written last: a folder without it is unfinished. Raises OutputError for a
    folder that holds something already.
    """
    _refuse_full(target)
    for part in sorted(entry for entry in model.folder.iterdir() if entry.is_dir()):
        for file in sorted(part.iterdir()):
            if file.is_file() and not _WEIGHTS.fullmatch(file.name):
                _copy(file, target / part.name / file.name)
        if part.name.startswith("tokenizer"):
            _write_old_tokenizer(part, target / part.name)
    for part, network in {**model.trainable_modules(), "vae": model.vae}.items():
        name = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
        tensors = {
            _published(part, key): value.detach().to("cpu", dtype or value.dtype).contiguous()
            for key, value in network.state_dict().items()
        }
        save_tensors(target / part / f"{name}.safetensors", tensors, {"format": "pt"})
    index = json.loads((model.folder / "model_index.json").read_text(encoding="utf-8"))
    for part, entry in index.items():  # what is not in the folder is not announced
        if isinstance(entry, list) and not (target / part).is_dir():
            index[part] = [None, None]
    with replacing(target / "model_index.json") as staged:
        staged.write_text(json.dumps(_complete(index, target), indent=2) + "\n", encoding="utf-8")
    return target


def copy_folder(source: Path, target: Path) -> Path:
    """Copy a model folder, model_index.json last. Raises OutputError as `write_folder` does."""
    _refuse_full(target)
    files = [file for file in sorted(source.glob("*/*")) if file.is_file()]
    for file in (*files, source / "model_index.json"):
        _copy(file, target / file.relative_to(source))
    return target


def _refuse_full(target: Path) -> None:
    check_folder_writable(target)
    if target.is_dir() and any(target.iterdir()):
        raise OutputError(f"{target} holds something already. Give an empty or a new folder.")


def _published(part: str, key: str) -> str:
    """Text encoders as every program but the newest transformers names their weights."""
    if not part.startswith("text_encoder") or key.startswith(("text_model.", "text_projection.")):
        return key
    return f"text_model.{key}"


def _complete(index: dict[str, Any], target: Path) -> dict[str, Any]:
    """The index with its parts' classes, which a folder made from a single file leaves out."""
    classes = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
    }
    missing = {part: pair for part, pair in classes.items() if (target / part).is_dir()}
    return {**missing, **index}


def _write_old_tokenizer(source: Path, target: Path) -> None:
    """vocab.json and merges.txt beside tokenizer.json, which transformers 4 cannot do without."""
    whole = source / "tokenizer.json"
    if (source / "vocab.json").is_file() or not whole.is_file():
        return
    told = json.loads(whole.read_text(encoding="utf-8"))
    words, merges = dict(told["model"]["vocab"]), told["model"]["merges"]
    for added in told.get("added_tokens", []):
        words.setdefault(added["content"], added["id"])
    lines = [pair if isinstance(pair, str) else " ".join(pair) for pair in merges]
    with replacing(target / "vocab.json") as staged:
        staged.write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")
    with replacing(target / "merges.txt") as staged:
        staged.write_text("\n".join(["#version: 0.2", *lines]) + "\n", encoding="utf-8")


def _copy(file: Path, target: Path) -> None:
    with replacing(target) as staged:
        shutil.copyfile(file, staged)
