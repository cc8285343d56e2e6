"""A flow model as a diffusers folder, with the weights it has now."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from understudy.files.atomic import replacing, write_json
from understudy.files.tensors import save_tensors
from understudy.models.family import Family, tokenizer_of
from understudy.models.folder import encoders_in, read_json
from understudy.models.transformer.configs import TEXT_ONLY
from understudy.models.transformer.load import TIED
from understudy.models.transformer.model import FlowTransformer
from understudy.models.weight_files import weight_files
from understudy.settings.suits import FILE as SUITS

PRIVATE = ("_name_or_path", "_commit_hash")


def write_flow(model: FlowTransformer, target: Path, dtype: torch.dtype | None) -> None:
    """The model as it is now, applied concepts included; weights as `dtype`, or as they are."""
    dtypes = {p: dtype or next(net.parameters()).dtype for p, net in model.networks.items()}
    _write_settings(model.folder, model.family, target, dtypes)
    for part, network in model.networks.items():
        if model.family.encoders.get(part) in TEXT_ONLY:
            # Only its text part is loaded, and nothing changes it: the files are copied whole.
            _copy_weights(model.folder / part, target / part)
            continue
        tied = TIED.get(model.family.encoders.get(part, ""), {})
        tensors = {
            key: value.detach().to("cpu", _kind(value, dtype)).contiguous()
            for key, value in network.state_dict().items()
            if key not in tied
        }
        file = target / part / f"{_stem(part)}.safetensors"
        save_tensors(file, tensors, {"format": "pt"})
    _write_index(model.folder, target)


def copy_flow_parts(source: Path, family: Family, target: Path) -> None:
    """The parts of a folder that are loaded, and nothing else."""
    _write_settings(source, family, target, {})
    for part in ("transformer", "vae", *encoders_in(source, family)):
        _copy_weights(source / part, target / part)
    _write_index(source, target)


def _copy_weights(source: Path, target: Path) -> None:
    indexes = sorted(source.glob("*.safetensors.index*.json"))
    for file in (*weight_files(source), *indexes):
        _copy(file, target / file.name)


def _write_settings(
    source: Path, family: Family, target: Path, dtypes: Mapping[str, torch.dtype]
) -> None:
    """Configurations, tokenizers and the scheduler; dtypes: of the weights that are written."""
    encoders = encoders_in(source, family)
    for part in ("transformer", "vae", *encoders):
        told = read_json(source / part / "config.json")
        config = {key: value for key, value in told.items() if key not in PRIVATE}
        if part in dtypes and part in encoders and family.encoders[part] not in TEXT_ONLY:
            # transformers loads a text encoder in the precision that its configuration says.
            said = str(dtypes[part]).removeprefix("torch.")
            config |= {"dtype": said, "torch_dtype": said}
        write_json(target / part / "config.json", config)
    for name in ("scheduler", *map(tokenizer_of, encoders)):
        for file in sorted((source / name).iterdir()):
            if file.is_file():
                _copy(file, target / name / file.name)


def _write_index(source: Path, target: Path) -> None:
    """model_index.json, and before it what suits the model (see settings/suits.py)."""
    if (source / SUITS).is_file():
        _copy(source / SUITS, target / SUITS)
    told = read_json(source / "model_index.json")
    index = {
        key: value
        for key, value in told.items()
        if key not in PRIVATE and (not isinstance(value, list) or (target / key).is_dir())
    }
    absent = {key: [None, None] for key, value in told.items()
              if isinstance(value, list) and key not in index}  # fmt: skip
    write_json(target / "model_index.json", {**index, **absent})


def _stem(part: str) -> str:
    return "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"


def _kind(value: torch.Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and value.is_floating_point() else value.dtype


def _copy(file: Path, target: Path) -> None:
    with replacing(target) as staged:
        shutil.copyfile(file, staged)
