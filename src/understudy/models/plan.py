"""What a run will need, before anything is loaded: weights, memory, arithmetic, licence.

Networks are built without memory (on the meta device) from the configurations of the folder or, for
a hub id that is not downloaded, of the published model. One evaluation is run on them under a
counter of matrix products.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.flop_counter import FlopCounterMode

from understudy.diffusion.text import Text
from understudy.models.family import (
    FLUX2_KLEIN,
    QWEN_IMAGE,
    SD3,
    Z_IMAGE,
    Family,
    family_named,
)
from understudy.models.folder import family_in, native_size, parameter_counts, read_json
from understudy.models.transformer.assemble import (
    NETWORKS,
    codec_of,
    guidance_of_family,
    reader_of,
)
from understudy.models.transformer.configs import network_config
from understudy.models.transformer.load import empty_flow_parts
from understudy.models.transformer.network import FlowNetwork
from understudy.settings import QUANTISED
from understudy.settings.bases import Base, base_named, licence_of, trained_instead

BYTES = {"int8": 1, "nf4": 0.5 + 4 / 64, "float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
AUTOENCODER = 84e6  # weights of SD3's, FLUX.1's and Z-Image's; FLUX.2's and Qwen-Image's are alike
WORDS = 64  # tokens of a prompt, where its length decides
# Tokens of the text of models that are not downloaded, where it is not the family's one encoder.
PUBLISHED_WORDS = {
    SD3.name: 77 + SD3.text_tokens,
    QWEN_IMAGE.name: WORDS,
    Z_IMAGE.name: WORDS,
}
# Numbers kept at once for each token and channel of a row, while a block is computed: the stream,
# its queries, keys and values, and the hidden units of the MLP. An estimate, not a measurement.
AT_WORK = 16


@dataclass(frozen=True)
class Plan:
    """What one evaluation of a model costs, and what the model is.

    Attributes:
        family: as messages call it; "Stable Diffusion" for U-Nets.
        licence: of the weights; "" = not known.
        gated: whether the hub wants the licence accepted before the download.
        train_on: the base to train instead; "" = this one can be trained.
        weights: number of weights by part.
        memory: bytes of all weights, as they are loaded.
        work: bytes that one row takes beside them, estimated; 0 = not known.
        row: multiply-accumulate operations of one row; 0 = not known.
        tokens: of the image and of the text in one row.
        guided: whether a guidance scale other than 1 takes an unconditional row per step.
    """

    family: str
    licence: str
    gated: bool
    train_on: str
    weights: Mapping[str, float]
    memory: float
    work: float = 0.0
    row: float = 0.0
    tokens: tuple[int, int] = (0, 0)
    guided: bool = True


def plan_of(model: str, folder: Path | None, dtype: str = "float32") -> Plan:
    """The plan of a model for one picture of its native size.

    folder: where it is, None if it is not downloaded. Raises ModelError for a damaged folder.
    """
    base = base_named(model)
    family = family_in(folder) if folder else family_named(base.pipeline) if base else None
    facts = _facts(model, base)
    if family is None or not family.flows:
        weights = parameter_counts(folder) if folder else {}
        memory = sum(weights.values()) * BYTES[dtype]
        return Plan("Stable Diffusion", *facts, weights, memory)
    network = empty_flow_network(family, base, folder)
    weights = _weights(network, base, folder)
    cells, text = _sizes(network, family, folder)
    image, row = (cells // network.patch) ** 2, _row(network, cells, text)
    how = guidance_of_family(family, embeds=network.embeds, distilled=_distilled(base, folder))
    width = network.sites[0].heads * _head_width(network)
    full = 2 if dtype in QUANTISED else BYTES[dtype]
    work = (image + text) * width * AT_WORK * full
    memory = sum(
        count * (BYTES[dtype] if part == "transformer" else full) for part, count in weights.items()
    )
    tokens, guided = (image, text), how.kind == "cfg"
    return Plan(family.name, *facts, weights, memory, work, row, tokens, guided)


def empty_flow_network(family: Family, base: Base | None, folder: Path | None) -> FlowNetwork:
    """The transformer without memory: of a folder's configuration, or of the published one's."""
    import diffusers

    kind: Any = getattr(diffusers, family.network)
    if folder is not None:
        config: Mapping[str, Any] = network_config(folder / "transformer" / "config.json", kind)
    else:
        config = base.config if base else {}
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of diffusers' own classes
        return NETWORKS[family.network](kind(**config))


def _facts(model: str, base: Base | None) -> tuple[str, bool, str]:
    return (licence_of(model), bool(base and base.gated), trained_instead(model))


def _weights(network: FlowNetwork, base: Base | None, folder: Path | None) -> dict[str, float]:
    """Number of weights by part, from headers where the files are here."""
    if folder is not None:
        return {part: float(count) for part, count in parameter_counts(folder).items()}
    own = sum(parameter.numel() for parameter in network.module.parameters())
    encoders = base.encoders * 1e9 if base else 0.0
    return {"transformer": float(own), "text encoders": encoders, "vae": AUTOENCODER}


def _sizes(network: FlowNetwork, family: Family, folder: Path | None) -> tuple[int, int]:
    """Latent cells along a side of a picture of native size, and tokens of the text."""
    if folder is None:
        side = int(getattr(network.config, "sample_size", 0) or (128 if network.patch == 2 else 64))
        return side, PUBLISHED_WORDS.get(family.name, family.text_tokens)
    # Read as loading reads them: tokenizers and configurations bound an encoder's places.
    parts = empty_flow_parts(folder)
    reader = reader_of(str(folder), parts)
    side = native_size(folder)[0] // codec_of(parts).downscale
    return side, reader.max_tokens if reader.padded else WORDS


def _distilled(base: Base | None, folder: Path | None) -> bool:
    """Whether the model's index says, or would say, that it is step-distilled."""
    if folder is not None:
        return bool(read_json(folder / "model_index.json").get("is_distilled", False))
    return bool(base and base.train_on and base.pipeline in FLUX2_KLEIN.pipelines)


def _row(network: FlowNetwork, side: int, words: int) -> float:
    """Multiply-accumulate operations of one row of side x side cells and `words` tokens of text."""
    config = network.config
    channels = int(config.in_channels) // (4 if network.packs else 1)
    width = int(getattr(config, "joint_attention_dim", 0) or config.cap_feat_dim)
    pooled = int(getattr(config, "pooled_projection_dim", 0) or 1)
    with torch.device("meta"):
        text = Text(torch.empty(1, words, width), torch.empty(1, pooled))
        latents, sigma = torch.empty(1, channels, side, side), torch.empty(1)
    counter = cast(Any, FlopCounterMode)(display=False)
    with counter, torch.no_grad():
        network.velocity(latents, sigma, text)
    return counter.get_total_flops() / 2


def _head_width(network: FlowNetwork) -> int:
    config = network.config
    known = getattr(config, "attention_head_dim", None)
    return int(known or config.dim // config.n_heads)
