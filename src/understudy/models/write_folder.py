"""A model as a diffusers folder, with the weights it has now: what any diffusers program loads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from understudy.errors import OutputError
from understudy.files.atomic import (
    check_folder_writable,
    replacing,
    staging,
    unwritable,
    write_json,
)
from understudy.files.tensors import save_tensors
from understudy.models.family import Family
from understudy.models.folder import family_in, read_json
from understudy.models.pipeline_index import CLASSES, SETTINGS, config_of, index_of
from understudy.models.transformer.model import FlowTransformer
from understudy.models.transformer.write import copy_flow_parts, write_flow
from understudy.models.unet.stable_diffusion import StableDiffusion
from understudy.models.weight_files import weight_files
from understudy.settings.suits import FILE as SUITS


def write_folder(
    model: StableDiffusion | FlowTransformer, target: Path, *, dtype: torch.dtype | None = None
) -> Path:
    """Write the model as it is now, with concepts applied; weights as `dtype`, or as they are.

    The folder appears whole or not at all. Raises OutputError for a folder that holds something
    already, and where it cannot be written.
    """
    with _staged(target) as folder:
        if isinstance(model, FlowTransformer):
            write_flow(model, folder, dtype)
        else:
            _write(model, folder, dtype)
    return target


def _write(model: StableDiffusion, target: Path, dtype: torch.dtype | None) -> None:
    networks = {**model.trainable_modules(), "vae": model.vae}
    _write_settings(
        model.folder,
        target,
        {part: dtype or next(net.parameters()).dtype for part, net in networks.items()},
    )
    for part, network in networks.items():
        name = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
        tensors = {
            _published(part, key): value.detach().to("cpu", dtype or value.dtype).contiguous()
            for key, value in network.state_dict().items()
        }
        save_tensors(target / part / f"{name}.safetensors", tensors, {"format": "pt"})
    _write_index(model.folder, target)


def copy_folder(source: Path, target: Path) -> Path:
    """Copy a model folder, whole or not at all. Raises OutputError as `write_folder` does."""
    with _staged(target) as folder:
        family = family_in(source)
        if family.flows:
            copy_flow_parts(source, family, folder)
        else:
            _copy_parts(source, family, folder)
    return target


def _copy_parts(source: Path, family: Family, target: Path) -> None:
    _write_settings(source, target, {})
    for part in family.networks:
        if (source / part).is_dir():
            for file in weight_files(source / part):
                _copy(file, target / part / file.name)
            for index in sorted((source / part).glob("*.safetensors.index*.json")):
                _copy(index, target / part / index.name)
    _write_index(source, target)


def _write_settings(source: Path, target: Path, dtypes: Mapping[str, torch.dtype]) -> None:
    """Configurations and tokenizers of the parts; dtypes: of the weights that are written."""
    for part in CLASSES:
        for name in SETTINGS:
            if (source / part / name).is_file():
                if name.endswith("config.json"):
                    told = read_json(source / part / name)
                    write_json(target / part / name, config_of(part, name, told, dtypes.get(part)))
                else:
                    _copy(source / part / name, target / part / name)
        if part.startswith("tokenizer") and (source / part).is_dir():
            _write_old_tokenizer(source / part, target / part)


def _write_index(source: Path, target: Path) -> None:
    """model_index.json, and before it what suits the model (see settings/suits.py)."""
    if (source / SUITS).is_file():
        _copy(source / SUITS, target / SUITS)
    told = read_json(source / "model_index.json")
    scheduler = read_json(source / "scheduler" / "scheduler_config.json").get("_class_name")
    write_json(target / "model_index.json", index_of(target, told, scheduler))


@contextmanager
def _staged(target: Path) -> Generator[Path]:
    """A temporary folder that becomes `target`; errors name `target`."""
    _refuse_full(target)
    try:
        with staging(target) as folder:
            yield folder
    except OutputError as error:
        if isinstance(error.__cause__, OSError):
            raise unwritable(target, error.__cause__) from error
        raise


def _refuse_full(target: Path) -> None:
    check_folder_writable(target)
    if target.is_dir() and any(target.iterdir()):
        raise OutputError(f"{target} holds something already. Give an empty or a new folder.")


def _published(part: str, key: str) -> str:
    """Text encoders as every program but the newest transformers names their weights."""
    if not part.startswith("text_encoder") or key.startswith(("text_model.", "text_projection.")):
        return key
    return f"text_model.{key}"


def _write_old_tokenizer(source: Path, target: Path) -> None:
    """vocab.json and merges.txt beside tokenizer.json, which transformers 4 cannot do without."""
    whole = source / "tokenizer.json"
    if (source / "vocab.json").is_file() or not whole.is_file():
        return
    told = read_json(whole)
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
