"""The parts of a flow model's folder: planned from configurations and headers, then loaded.

As for Stable Diffusion (parts.py): no pipeline, no Auto class, no from_pretrained for weights.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from understudy.diffusion.flow import FlowSchedule
from understudy.errors import ModelError
from understudy.models.family import T5, Family, tokenizer_of
from understudy.models.folder import check_folder, encoders_in, read_json
from understudy.models.parts import Planned, filled, sources_of
from understudy.models.quiet import explained, quietly
from understudy.models.transformer.configs import (
    TEXT_ONLY,
    encoder_config,
    layers_in,
    network_config,
    numbers_in,
)
from understudy.models.transformer.flow_config import load_flow_schedule
from understudy.models.transformer.tokenizers import load_tokenizer
from understudy.models.weight_files import Entry, entries

# Tensors of a text encoder that are another one's weights, if the files do not have them.
TIED = {T5: {"encoder.embed_tokens.weight": "shared.weight"}}
# T5's last projections overflow in half precision.
KEPT_FINE = {T5: ".wo."}


@dataclass(frozen=True)
class FlowParts:
    """What a folder holds, in memory: networks and tokenizers by the names of their folders.

    distilled: whether the folder says that the model is step-distilled (FLUX.2 klein).
    """

    family: Family
    networks: Mapping[str, nn.Module]
    tokenizers: Mapping[str, Any]
    schedule: FlowSchedule
    distilled: bool = False


def check_flow_model(folder: Path) -> Family:
    """Everything that loading checks, without reading the weights. Raises ModelError."""
    family = check_folder(folder)
    planned, _ = plan_flow_parts(folder, family)
    load_flow_schedule(folder, family, cells_per_token(family, planned["transformer"].network))
    return family


def plan_flow_parts(folder: Path, family: Family) -> tuple[dict[str, Planned], dict[str, Any]]:
    """The networks and the tokenizers of a folder by the names of its sub-folders.

    Raises ModelError for a part that is damaged, or that does not fit the others.
    """
    encoders = encoders_in(folder, family)
    with quietly():
        planned = {
            part: _planned(folder, part, family) for part in ("transformer", "vae", *encoders)
        }
        tokenizers = {
            name: load_tokenizer(folder / name, family.tokenizers[name])
            for name in map(tokenizer_of, encoders)
        }
    _check_fit(folder, planned, tokenizers)
    return planned, tokenizers


def load_flow_parts(folder: Path, dtype: torch.dtype) -> FlowParts:
    """The parts of a folder, on the CPU. Raises ModelError as plan_flow_parts does."""
    family = check_folder(folder)
    planned, tokenizers = plan_flow_parts(folder, family)
    networks = {part: _loaded(family, part, plan, dtype) for part, plan in planned.items()}
    return _parts(folder, family, networks, tokenizers)


def empty_flow_parts(folder: Path) -> FlowParts:
    """The same without weights: parameters are on the meta device. Raises the same."""
    family = check_folder(folder)
    planned, tokenizers = plan_flow_parts(folder, family)
    networks = {part: plan.network for part, plan in planned.items()}
    return _parts(folder, family, networks, tokenizers)


def _parts(
    folder: Path, family: Family, networks: Mapping[str, nn.Module], tokenizers: Mapping[str, Any]
) -> FlowParts:
    schedule = load_flow_schedule(folder, family, cells_per_token(family, networks["transformer"]))
    distilled = bool(read_json(folder / "model_index.json").get("is_distilled", False))
    return FlowParts(family, networks, tokenizers, schedule, distilled)


def cells_per_token(family: Family, network: nn.Module) -> int:
    """Latent cells in one image token of a transformer."""
    return int(family.patch or cast(Any, network).config.patch_size) ** 2


def _planned(folder: Path, part: str, family: Family) -> Planned:
    path = folder / part
    found = entries(path)
    kind = class_of(family, part)
    file = path / "config.json"
    encoder = family.encoders.get(part)
    config = encoder_config(file, encoder) if encoder else network_config(file, kind)
    if layers_in(config) > len(found):
        raise ModelError(
            f"{file} asks for {layers_in(config)} layers, and the weights have only {len(found)} "
            "tensors. Copy or download it again."
        )
    if numbers_in(config) > sum(math.prod(one.shape) for one in found.values()):
        raise ModelError(
            f"{file} asks for a table of {numbers_in(config):,} positions and widths, and the "
            "weights have fewer numbers. Copy or download it again."
        )
    with explained(path):
        network = empty_network(kind, config)
    tied = TIED.get(encoder or "", {})
    sources = sources_of(path, network, _with_tied(found, tied))
    for own, other in tied.items():
        real = other if other in found else own
        sources[own] = sources[other] = sources[real]
    return Planned(path, network, config, sources)


def class_of(family: Family, part: str) -> type[Any]:
    """The class of a part, imported from diffusers or transformers."""
    import diffusers
    import transformers

    if part in family.encoders:
        kind = family.encoders[part]
        return getattr(transformers, TEXT_ONLY.get(kind, kind))
    return getattr(diffusers, family.network if part == "transformer" else family.autoencoder)


def empty_network(kind: type[Any], config: Mapping[str, Any]) -> nn.Module:
    """A network with its parameters on the meta device."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of diffusers' own classes
        if hasattr(kind, "load_config"):  # a class of diffusers
            return kind.from_config(dict(config))
        return kind(kind.config_class(**config))


def _with_tied(found: dict[str, Entry], tied: Mapping[str, str]) -> dict[str, Entry]:
    """The entries of the files; of two tied tensors each stands for the other that is not there."""
    pairs = [*tied.items(), *((other, own) for own, other in tied.items())]
    return {**{own: found[other] for own, other in pairs if other in found}, **found}


def _loaded(family: Family, part: str, plan: Planned, dtype: torch.dtype) -> nn.Module:
    """A part with its weights. A tied tensor is one parameter again afterwards."""
    encoder = family.encoders.get(part, "")
    kept = KEPT_FINE.get(encoder) if dtype == torch.float16 else None
    network = filled(plan, dtype, kept_fine=kept)
    if encoder in TIED:
        cast(Any, network).tie_weights()
    return network


def _check_fit(folder: Path, planned: Mapping[str, Planned], tokenizers: Mapping[str, Any]) -> None:
    """Whether the parts were made for each other, by their configurations."""
    pairs: list[tuple[str, int, str, int]] = []
    for name, tokenizer in tokenizers.items():
        part = name.replace("tokenizer", "text_encoder")
        rows = int(cast(Any, planned[part].network).config.vocab_size)
        words = max(len(tokenizer), 1 + max(tokenizer.get_vocab().values()))
        pairs.append((f"{part} has", min(rows, words), "words, its tokenizer", words))
    network = cast(Any, planned["transformer"].network).config
    vae = cast(Any, planned["vae"].network).config
    given = int(getattr(vae, "latent_channels", None) or vae.z_dim)
    taken = int(network.in_channels)
    taken = taken // 4 if taken == 4 * given else taken  # 2 x 2 cells are packed into a token
    pairs.append(("transformer takes", taken, "latent channels, vae gives", given))
    for what, wanted, versus, got in pairs:
        if wanted != got:
            raise ModelError(
                f"The parts of {folder} do not fit: {what} {wanted} {versus} {got}. "
                "Use parts of one model."
            )
