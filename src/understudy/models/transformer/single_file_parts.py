"""The parts of a flow model's folder beside the transformer, made from a checkpoint file.

Autoencoder and text encoders come from the file where it holds them under known names, otherwise
from a folder beside it or from the hub. Tokenizers are in no such file.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from understudy.errors import ModelError
from understudy.files.atomic import write_json
from understudy.models.family import (
    CHROMA,
    CLIP,
    CLIP_PROJECTED,
    FLUX,
    FLUX2,
    FLUX2_KLEIN,
    QWEN_IMAGE,
    SD3,
    T5,
    Z_IMAGE,
    Family,
    tokenizer_of,
)
from understudy.models.single_file_shapes import clip_config, refuse_unused
from understudy.models.transformer.shards import EIGHTHS, Piece, write_shards
from understudy.models.transformer.single_file_shapes import (
    CLIP_G,
    Layout,
    autoencoder_config,
    t5_config,
)
from understudy.models.weight_files import Entry, weight_files
from understudy.settings.bases import base_named, trained_instead
from understudy.settings.checkpoints import GUIDED

# (hub id, sub-folder, whether its weights are wanted) -> that sub-folder
FindPart = Callable[[str, str, bool], Path]
AUTOENCODERS = ("first_stage_model.", "vae.")
# Of CLIP's and T5's training, and of ComfyUI's loaders.
UNREAD = ("logit_scale", "transformer.text_model.embeddings.position_ids", "spiece_model")
# Where a file's family is published as a folder, if the file's name does not say which model it is.
REPOSITORIES = {
    SD3.name: "stabilityai/stable-diffusion-3.5-medium",
    FLUX.name: "black-forest-labs/FLUX.1-schnell",
    CHROMA.name: "lodestones/Chroma1-HD",
    QWEN_IMAGE.name: "Qwen/Qwen-Image",
    Z_IMAGE.name: "Tongyi-MAI/Z-Image",
    FLUX2_KLEIN.name: "black-forest-labs/FLUX.2-klein-base-4B",
    FLUX2.name: "black-forest-labs/FLUX.2-dev",
}
_SHIFTING = {"use_dynamic_shifting": True, "shift": 3.0, "base_shift": 0.5, "max_shift": 1.15}
# Published schedules of the families whose models all have the same one.
SCHEDULERS: dict[str, dict[str, Any]] = {
    SD3.name: {"shift": 3.0}, FLUX2.name: _SHIFTING, FLUX2_KLEIN.name: _SHIFTING,
    QWEN_IMAGE.name: {**_SHIFTING, "shift": 1.0, "max_shift": 0.9, "max_image_seq_len": 8192,
                   "shift_terminal": 0.02},
}  # fmt: skip


@dataclass(frozen=True)
class Conversion:
    """One file on its way to a folder. repository: where its family is published."""

    file: Path
    folder: Path
    layout: Layout
    entries: Mapping[str, Entry]
    find_part: FindPart

    @property
    def repository(self) -> str:
        base = base_named(self.file.name)
        known = base is not None and base.pipeline in self.layout.family.pipelines
        return base.hub_id if base and known else REPOSITORIES[self.layout.family.name]

    def part(self, name: str, *, weights: bool = True) -> Path:
        """The sub-folder of a part that the file lacks."""
        return self.find_part(self.repository, name, weights)

    def below(self, prefix: str) -> dict[str, Entry]:
        """The file's entries whose names have a prefix, without it."""
        cut = len(prefix)
        return {name[cut:]: one for name, one in self.entries.items() if name.startswith(prefix)}


def write_autoencoder(work: Conversion) -> set[str]:
    """Write vae/, from the file where it is there under known names; returns the names used."""
    from diffusers.loaders import single_file_utils as rules

    prefix = next((p for p in AUTOENCODERS if work.below(p)), None)
    kept = work.layout.family.autoencoder == "AutoencoderKL"
    if prefix is None or not kept:
        _copy_part(work, "vae")
        return set()
    found = work.below(prefix)
    try:
        config = autoencoder_config(work.layout.family, found)
    except KeyError as error:
        raise ModelError(
            f"{work.file} is incomplete: {prefix}{error.args[0]} is absent."
        ) from error
    own = {f"{prefix}{name}": _tensor(work, f"{prefix}{name}") for name in found}
    renamed = cast("dict[str, Tensor]", rules.convert_ldm_vae_checkpoint(own, config))
    refuse_unused(work.file, "autoencoder", own, renamed)
    write_json(work.folder / "vae" / "config.json", config)
    write_shards(work.folder / "vae", work.file, {}, renamed)
    return set(own)


def write_encoder(work: Conversion, part: str) -> set[str] | None:
    """Write a text encoder and its tokenizer; returns the names used, None where it has none."""
    family, prefix = work.layout.family, work.layout.encoder_prefix(part, work.entries)
    kind = family.encoders[part]
    if prefix is None:
        place, encoders = work.file.parent, family.encoders
        in_file = any(work.layout.encoder_prefix(one, work.entries) for one in encoders)
        others = in_file or any((place / one).is_dir() for one in encoders)
        if part in family.optional and others and not (place / part).is_dir():
            return None
        _copy_part(work, part)
        _copy_part(work, tokenizer_of(part))
        return set()
    found = work.below(prefix)
    try:
        if kind in (CLIP, CLIP_PROJECTED):
            act = "gelu" if CLIP_G in prefix else "quick_gelu"
            config = {**clip_config(found, "", act), "architectures": [kind]}
            if "text_projection.weight" in found:
                config["projection_dim"] = found["text_projection.weight"].shape[0]
        elif kind == T5:
            if "shared.weight" not in found and "encoder.embed_tokens.weight" in found:
                found = {**found, "shared.weight": found["encoder.embed_tokens.weight"]}
            config = t5_config(found)
        else:
            config = None
    except KeyError as error:
        raise ModelError(
            f"{work.file} is incomplete: {prefix}{error.args[0]} is absent."
        ) from error
    target = work.folder / part
    if config is None:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(work.part(part, weights=False) / "config.json", target / "config.json")
    else:
        write_json(target / "config.json", config)
    names = {name for name in work.entries if name.startswith(prefix)}
    unread = {name for name in names if name.endswith(UNREAD)}
    write_shards(
        target, work.file, {n.removeprefix(prefix): Piece(n) for n in sorted(names - unread)}
    )
    _copy_part(work, tokenizer_of(part))
    return names


def _copy_part(work: Conversion, part: str) -> None:
    """A part that the file lacks, from beside it or from the hub."""
    source, target = work.part(part), work.folder / part
    target.mkdir(parents=True, exist_ok=True)
    plain = part.startswith("tokenizer") or part == "scheduler"
    files = [one for one in source.iterdir() if one.suffix in (".json", ".txt", ".model", ".jinja")]
    for file in [*files, *([] if plain else weight_files(source))]:
        if file.is_file():
            shutil.copyfile(file, target / file.name)


def write_scheduler(work: Conversion) -> None:
    family, beside = work.layout.family, work.file.parent / "scheduler"
    known = SCHEDULERS.get(family.name)
    if family is FLUX:
        guided = f"{work.layout.prefix}{GUIDED}" in work.entries
        known = _SHIFTING if guided else {"shift": 1.0}
    if beside.is_dir() or known is None:
        return _copy_part(work, "scheduler")
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
    write_json(work.folder / "scheduler" / "scheduler_config.json", {**config, **known})


def index_of(work: Conversion, encoders: Mapping[str, bool]) -> dict[str, Any]:
    """model_index.json of the folder."""
    family = work.layout.family
    index: dict[str, Any] = {
        "_class_name": _pipeline(work.file, family),
        "transformer": ["diffusers", family.network],
        "vae": ["diffusers", family.autoencoder],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    }
    for part, there in encoders.items():
        tokenizer = tokenizer_of(part)
        index[part] = ["transformers", family.encoders[part]] if there else [None, None]
        index[tokenizer] = ["transformers", family.tokenizers[tokenizer]] if there else [None] * 2
    if family is FLUX2_KLEIN:
        index["is_distilled"] = bool(trained_instead(work.file.name))
    return index


def _pipeline(file: Path, family: Family) -> str:
    """The pipeline class: of the published model that the file's name says, or the family's."""
    base = base_named(file.name)
    return base.pipeline if base and base.pipeline in family.pipelines else family.pipelines[0]


def _tensor(work: Conversion, name: str) -> Tensor:
    from safetensors import safe_open

    with safe_open(work.file, "pt") as opened:
        value: Tensor = opened.get_tensor(name)
    return value.to(torch.bfloat16) if value.dtype in EIGHTHS else value
