"""Which network adapter, autoencoder codec and prompt reader belong to a family."""

from __future__ import annotations

from typing import Any, cast

from understudy.models.transformer.autoencoder import Codec, KLCodec
from understudy.models.transformer.load import FlowParts
from understudy.models.transformer.networks import FlowNetwork, SD3Network
from understudy.models.transformer.readers import Reader, SD3Reader, clip_encoder, t5_encoder


def network_of(parts: FlowParts) -> FlowNetwork:
    """The transformer of these parts; its attention processors are replaced by ours."""
    return SD3Network(parts.networks["transformer"])


def codec_of(parts: FlowParts) -> Codec:
    """The autoencoder of these parts."""
    return KLCodec(parts.networks["vae"])


def reader_of(name: str, parts: FlowParts) -> Reader:
    """The text encoders of these parts. name: of the model, for messages."""
    return _sd3_reader(name, parts)


def _sd3_reader(name: str, parts: FlowParts) -> Reader:
    networks, tokenizers = parts.networks, parts.tokenizers
    clips = [
        clip_encoder(tokenizers[f"tokenizer{end}"], networks[f"text_encoder{end}"])
        for end in ("", "_2")
    ]
    length = parts.family.text_tokens
    t5 = None
    if "text_encoder_3" in networks:
        t5 = t5_encoder(tokenizers["tokenizer_3"], networks["text_encoder_3"], length)
    width = int(cast(Any, networks["transformer"]).config.joint_attention_dim)
    return SD3Reader(name, clips, t5, width=width, length=length)
