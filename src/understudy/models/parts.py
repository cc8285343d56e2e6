"""The parts of a diffusers folder: planned from configurations and headers, then loaded strictly.

No pipeline, no Auto class and no from_pretrained for weights: a network is built without memory
from the keys of network_configs.py, compared with the headers of its files, and only then filled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.models.family import SDXL, Family
from understudy.models.folder import check_folder
from understudy.models.network_configs import blocks_in, network_config
from understudy.models.quiet import explained, quietly
from understudy.models.schedule_config import load_schedule
from understudy.models.tokenizer_files import load_tokenizer
from understudy.models.weight_files import Entry, entries

FLOATS = ("F64", "F32", "F16", "BF16")
# Names of the autoencoder's attention in folders written before 2023, and now.
OLD_VAE = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_VAE = re.compile(r"(mid_block\.attentions\.\d+)\.(query|key|value|proj_attn)\.")
# Tensors that a text encoder's files may have and that its class here does not read.
# Prefixes of the text part in the files of language models, and of what is not the text part.
LANGUAGE = ("model.language_model.", "language_model.model.", "model.")
OTHER_SENSES = re.compile(
    r"(model\.)?(visual|vision_tower|multi_modal_projector)\.|(language_model\.)?lm_head\."
)
UNREAD = re.compile(r"(text_model\.)?embeddings\.position_ids|logit_scale|text_projection\.weight")


@dataclass(frozen=True)
class Planned:
    """A part that can be loaded: its network without memory, and the entry of every tensor.

    sources: for each tensor of the network its name in the files, and where it is there.
    """

    path: Path
    network: nn.Module
    config: Mapping[str, Any]
    sources: Mapping[str, tuple[str, Entry]] = field(repr=False)


def check_model(folder: Path) -> None:
    """Everything that loading checks, without reading the weights. Raises ModelError."""
    plan_parts(folder, check_folder(folder))
    load_schedule(folder)


def plan_parts(folder: Path, family: Family) -> tuple[dict[str, Planned], dict[str, Any]]:
    """The networks and the tokenizers of a folder by the names of its sub-folders.

    Raises ModelError for a part that is damaged, or that does not fit the others.
    """
    with quietly():
        planned = {part: _planned(folder, part, family) for part in family.networks}
        tokenizers = {name: load_tokenizer(folder / name) for name in family.tokenizers}
    _check_fit(folder, {part: one.network for part, one in planned.items()}, tokenizers)
    return planned, tokenizers


def load_parts(folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    """The networks and tokenizers of a folder by the names of its sub-folders, on the CPU.

    Raises ModelError as plan_parts does, and for weights that are not finite.
    """
    family = check_folder(folder)
    planned, tokenizers = plan_parts(folder, family)
    parts: dict[str, Any] = dict(tokenizers)
    for part, plan in planned.items():
        parts[part] = filled(plan, _precision(plan, dtype, xl=family is SDXL))
    for part, tokenizer in tokenizers.items():
        _pool_at_the_end(parts[part.replace("tokenizer", "text_encoder")], tokenizer)
    return parts


def _precision(plan: Planned, dtype: torch.dtype, *, xl: bool) -> torch.dtype:
    # XL's autoencoder overflows in half precision, as its configuration says.
    upcast = plan.path.name == "vae" and dtype == torch.float16 and xl
    return torch.float32 if upcast and plan.config.get("force_upcast", True) else dtype


def _planned(folder: Path, part: str, family: Family) -> Planned:
    path = folder / part
    config = network_config(folder, part)
    found = entries(path)
    if blocks_in(config) > len(found):
        raise ModelError(
            f"{path / 'config.json'} asks for {blocks_in(config)} blocks, and the weights have "
            f"only {len(found)} tensors. Copy or download it again."
        )
    with explained(path):
        network = _built(family, part, config)
    return Planned(path, network, config, sources_of(path, network, found))


def _built(family: Family, part: str, config: Mapping[str, Any]) -> nn.Module:
    """The network of a part with its parameters on the meta device."""
    import diffusers
    import transformers
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        if part in family.encoders:
            text: Any = cast(Any, transformers.CLIPTextConfig)(**config, attn_implementation="sdpa")
            return getattr(transformers, family.encoders[part])(text)
        kind: Any = getattr(diffusers, family.autoencoder if part == "vae" else family.network)
        return kind.from_config(dict(config))


def sources_of(
    path: Path, network: nn.Module, found: Mapping[str, Entry]
) -> dict[str, tuple[str, Entry]]:
    """Every tensor of the network with its entry. Raises ModelError unless the two agree."""
    wanted = network.state_dict()
    sources: dict[str, tuple[str, Entry]] = {}
    left: list[str] = []
    for name, entry in found.items():
        own = _own_name(path.name, name, wanted)
        if own in sources:
            raise ModelError(f"{path} has {name[:90]!r} twice, also as {sources[own][0][:90]!r}.")
        if own is not None:
            sources[own] = (name, entry)
        elif not _unread(path.name, name, network):
            left.append(name)
    missing = sorted(wanted.keys() - sources.keys())
    if missing:
        raise ModelError(
            f"The weights of {path} lack {_counted(missing)}. Copy or download it again."
        )
    for own, (name, entry) in sources.items():
        if tuple(wanted[own].shape) != entry.shape:
            raise ModelError(
                f"{path} cannot be loaded: its configuration asks for {name[:90]} of shape "
                f"{tuple(wanted[own].shape)}, {entry.file.name} has {entry.shape}."
            )
        if entry.dtype not in FLOATS and wanted[own].is_floating_point():
            raise ModelError(
                f"{path} holds {name[:90]} as {entry.dtype}. Expected one of {', '.join(FLOATS)}: "
                "quantised weights are not supported."
            )
    if left:
        raise ModelError(
            f"The configuration of {path} does not use {_counted(left)}. Use the configuration "
            "that the weights were saved with."
        )
    return sources


def _counted(names: list[str]) -> str:
    """ "the tensor a", or "3 tensors, the first is a"."""
    first = repr(names[0][:90])
    return (
        f"the tensor {first}" if len(names) == 1 else f"{len(names)} tensors, the first is {first}"
    )


def _own_name(part: str, name: str, wanted: Mapping[str, Tensor]) -> str | None:
    """The network's name of a tensor in a file: old names, and with or without "text_model."."""
    if part == "vae":
        name = _OLD_VAE.sub(lambda match: f"{match[1]}.{OLD_VAE[match[2]]}.", name)
    forms = [name]
    if part.startswith("text_encoder"):
        forms += [name.removeprefix("text_model."), f"text_model.{name}"]
        forms += [name.removeprefix(prefix) for prefix in LANGUAGE if name.startswith(prefix)]
    return next((form for form in forms if form in wanted), None)


def _unread(part: str, name: str, network: Any) -> bool:
    """Whether a tensor may be left unread: positions, or layers that the configuration cuts off."""
    if not part.startswith("text_encoder"):
        return False
    layer = re.match(r"(text_model\.)?encoder\.layers\.(\d{1,4})\.", name)
    cut = layer is not None and int(layer[2]) >= network.config.num_hidden_layers
    seen = hasattr(network, "rotary_emb") and OTHER_SENSES.match(name) is not None
    return cut or seen or UNREAD.fullmatch(name) is not None


def filled(plan: Planned, dtype: torch.dtype, *, kept_fine: str | None = None) -> nn.Module:
    """The network with its weights, each tensor a copy in memory.

    kept_fine: part of the names of tensors that stay float32 whatever dtype is.
    """
    from safetensors import safe_open

    by_file: dict[Path, list[tuple[str, str]]] = {}
    for own, (name, entry) in plan.sources.items():
        by_file.setdefault(entry.file, []).append((own, name))
    state: dict[str, Tensor] = {}
    with explained(plan.path):
        for file, names in by_file.items():
            with safe_open(file, "pt") as opened:
                for own, name in names:
                    fine = kept_fine is not None and kept_fine in own
                    kind = torch.float32 if fine else dtype
                    value = opened.get_tensor(name)
                    state[own] = value.to(
                        kind if value.is_floating_point() else value.dtype, copy=True
                    )
        for own, tensor in state.items():
            if not tensor.isfinite().all():
                raise ModelError(
                    f"{plan.path} cannot be loaded: {own} holds values that are not finite in "
                    f"{str(dtype).removeprefix('torch.')}. Copy or download it again."
                )
        plan.network.load_state_dict(state, strict=True, assign=True)
    return plan.network


def _pool_at_the_end(encoder: Any, tokenizer: Any) -> None:
    """Let an old configuration say where a prompt ends.

    It says token 2, whereupon transformers takes the highest id: wrong once words are added.
    """
    for module in encoder.modules():
        if getattr(module, "eos_token_id", None) == 2:
            module.eos_token_id = tokenizer.eos_token_id


def _check_fit(folder: Path, networks: Mapping[str, Any], tokenizers: Mapping[str, Any]) -> None:
    """Whether the parts were made for each other, by their configurations."""
    unet, vae, text = (networks[name].config for name in ("unet", "vae", "text_encoder"))
    second = networks["text_encoder_2"].config if "text_encoder_2" in networks else None
    width = text.hidden_size + (second.hidden_size if second else 0)
    pairs = [
        ("unet takes", unet.in_channels, "latent channels, vae gives", vae.latent_channels),
        ("unet gives", unet.out_channels, "latent channels, vae takes", vae.latent_channels),
        ("unet reads", unet.cross_attention_dim, "wide text, encoder gives", width),
    ]
    for name, tokenizer in tokenizers.items():
        part = name.replace("tokenizer", "text_encoder")
        rows, words = networks[part].config.vocab_size, len(tokenizer)
        words = max(words, 1 + max(tokenizer.get_vocab().values()))
        pairs.append((f"{part} has", min(rows, words), "words, its tokenizer", words))
    if second:
        added = second.projection_dim + 6 * (unet.addition_time_embed_dim or 0)
        taken = unet.projection_class_embeddings_input_dim
        pairs.append(("unet adds", taken, "numbers of text and frame, there are", added))
    for what, wanted, versus, got in pairs:
        if wanted != got:
            raise ModelError(
                f"The parts of {folder} do not fit: {what} {wanted} {versus} {got}. "
                "Use parts of one model (inpainting, depth and refiner models are not supported)."
            )
    if unet.addition_embed_type != ("text_time" if second else None) or unet.class_embed_type:
        raise ModelError(f"The unet of {folder} needs inputs beyond text, which is not supported.")
