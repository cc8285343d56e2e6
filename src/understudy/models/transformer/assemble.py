"""Which network adapter, autoencoder codec and prompt reader belong to a family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from torch import nn

from understudy.diffusion.guidance import Guidance
from understudy.models.family import (
    CHROMA,
    FLUX,
    FLUX2,
    FLUX2_KLEIN,
    QWEN_IMAGE,
    SD3,
    Z_IMAGE,
    Family,
)
from understudy.models.transformer import language
from understudy.models.transformer.autoencoder import Codec, Flux2Codec, KLCodec, QwenCodec
from understudy.models.transformer.language import LanguageReader
from understudy.models.transformer.load import FlowParts
from understudy.models.transformer.network import FlowNetwork
from understudy.models.transformer.networks import (
    ChromaNetwork,
    Flux2Network,
    FluxNetwork,
    QwenNetwork,
    SD3Network,
    ZImageNetwork,
)
from understudy.models.transformer.readers import (
    ChromaReader,
    FluxReader,
    Reader,
    SD3Reader,
    clip_encoder,
    t5_encoder,
)

NETWORKS: Mapping[str, Callable[[nn.Module], FlowNetwork]] = {
    "SD3Transformer2DModel": SD3Network,
    "FluxTransformer2DModel": FluxNetwork,
    "ChromaTransformer2DModel": ChromaNetwork,
    "Flux2Transformer2DModel": Flux2Network,
    "QwenImageTransformer2DModel": QwenNetwork,
    "ZImageTransformer2DModel": ZImageNetwork,
}
CODECS: Mapping[str, Callable[[nn.Module], Codec]] = {
    "AutoencoderKL": KLCodec,
    "AutoencoderKLQwenImage": QwenCodec,
    "AutoencoderKLFlux2": Flux2Codec,
}
CHATS = {
    QWEN_IMAGE.name: language.QWEN_IMAGE,
    Z_IMAGE.name: language.Z_IMAGE,
    FLUX2_KLEIN.name: language.KLEIN,
    FLUX2.name: language.FLUX2,
}


def network_of(parts: FlowParts) -> FlowNetwork:
    """The transformer of these parts; its attention processors are replaced by ours."""
    return NETWORKS[parts.family.network](parts.networks["transformer"])


def codec_of(parts: FlowParts) -> Codec:
    """The autoencoder of these parts."""
    return CODECS[parts.family.autoencoder](parts.networks["vae"])


def guidance_of_parts(parts: FlowParts) -> Guidance:
    """How a model of these parts is guided."""
    config = cast(Any, parts.networks["transformer"]).config
    embeds = bool(getattr(config, "guidance_embeds", False))
    return guidance_of_family(parts.family, embeds=embeds, distilled=parts.distilled)


def guidance_of_family(family: Family, *, embeds: bool, distilled: bool) -> Guidance:
    """How a model of a family is guided.

    embeds: whether its network reads a guidance scale. distilled: see FlowParts.
    """
    if embeds:
        return Guidance("embedded")
    if family is FLUX or distilled:
        return Guidance("none")  # FLUX.1 without a guidance input is schnell
    return Guidance(rescaled=family is QWEN_IMAGE)


def reader_of(name: str, parts: FlowParts) -> Reader:
    """The text encoders of these parts. name: of the model, for messages."""
    networks, tokenizers, family = parts.networks, parts.tokenizers, parts.family
    if family is SD3:
        return _sd3_reader(name, parts)
    if family is FLUX:
        clip = clip_encoder(tokenizers["tokenizer"], networks["text_encoder"])
        length = family.text_tokens
        t5 = t5_encoder(tokenizers["tokenizer_2"], networks["text_encoder_2"], length)
        return FluxReader(name, clip, t5)
    tokenizer, network = tokenizers["tokenizer"], networks["text_encoder"]
    if family is CHROMA:
        return ChromaReader(name, t5_encoder(tokenizer, network, family.text_tokens))
    return LanguageReader(name, tokenizer, network, CHATS[family.name])


def _sd3_reader(name: str, parts: FlowParts) -> Reader:
    networks, tokenizers = parts.networks, parts.tokenizers
    clips = [
        clip_encoder(tokenizers[f"tokenizer{end}"], networks[f"text_encoder{end}"])
        for end in ("", "_2")
    ]
    # The states of both stand side by side, so the shorter sequence is that of both.
    shorter = min(clip.length for clip in clips)
    clips = [replace(clip, length=shorter) for clip in clips]
    length = parts.family.text_tokens
    t5 = None
    if "text_encoder_3" in networks:
        t5 = t5_encoder(tokenizers["tokenizer_3"], networks["text_encoder_3"], length)
    width = int(cast(Any, networks["transformer"]).config.joint_attention_dim)
    return SD3Reader(name, clips, t5, width=width, length=length)
