"""Tiny, random folders of flow transformers, in the layouts of real ones.

    model = tiny_flow("sd3")                a fresh model each time; change it as you like
    folder = tiny_flow_folder("sd3")        the folder, made once a session; do not write to it
    pipe = stock_pipeline("sd3")            diffusers' own pipeline of the same folder

Kinds: see KINDS. Pictures are 32 x 32 by default. Words of tiny.WORDS are one token each.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

import tiny
from understudy.models.transformer.model import FlowTransformer

# sd3: no QK-norm, no T5. sd35: QK-norm, a second attention in block 0, T5 of 24 places.
KINDS = ("sd35", "sd3")
SIDE = 16  # latent cells along a side; the autoencoders halve once


def tiny_flow(kind: str = "sd35", **how: Any) -> FlowTransformer:
    """A freshly loaded tiny model on the CPU; how = device, dtype."""
    return FlowTransformer.from_folder(tiny_flow_folder(kind), **{"device": "cpu", **how})


@cache
def tiny_flow_folder(kind: str = "sd35") -> Path:
    """The folder of a tiny model, made when first asked for and kept until the session ends."""
    folder = tiny._session() / f"flow-{kind}"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(KINDS.index(kind))
        write_tiny_flow(folder, kind)
    return folder


def write_tiny_flow(folder: Path, kind: str = "sd35") -> None:
    """Write a tiny model of this kind, from torch's current random state."""
    pipeline = MAKERS[kind]()
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            shaken(part)
    pipeline.save_pretrained(folder)


def stock_pipeline(kind: str = "sd35") -> Any:
    """diffusers' pipeline of a tiny folder, float32, without progress bars.

    It does not load a folder without T5 unless it is told that T5 is absent.
    """
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(
        tiny_flow_folder(kind),
        dtype=torch.float32,
        local_files_only=True,
        **({"text_encoder_3": None, "tokenizer_3": None} if kind == "sd3" else {}),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def shaken(module: torch.nn.Module) -> None:
    """Random values where a fresh network has zeros or ones, so that every tensor matters."""
    with torch.no_grad():
        for value in module.parameters():
            if value.unique().numel() == 1:
                value.add_(torch.randn_like(value) * 0.2)


def _sd3(modern: bool) -> Any:
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    new: dict[str, Any] = {"qk_norm": "rms_norm", "dual_attention_layers": (0,)}
    network = SD3Transformer2DModel(
        sample_size=SIDE,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_projection_dim=16,
        joint_attention_dim=24,
        pooled_projection_dim=16,
        pos_embed_max_size=24,
        **(new if modern else {}),
    )
    t5 = {"text_encoder_3": t5_network(24), "tokenizer_3": t5_tokenizer(24)}
    return StableDiffusion3Pipeline(
        transformer=network,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=kl_autoencoder(4),
        text_encoder=clip_network(8),
        tokenizer=tiny._tokenizer("sd15"),
        text_encoder_2=clip_network(8),
        tokenizer_2=tiny._tokenizer("second"),
        **(t5 if modern else {"text_encoder_3": None, "tokenizer_3": None}),
    )


def kl_autoencoder(channels: int) -> Any:
    """An AutoencoderKL that halves once, with a shift as SD3's and FLUX's have it."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        latent_channels=channels,
        block_out_channels=[8, 8],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        norm_num_groups=4,
        scaling_factor=1.5,
        shift_factor=0.06,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def clip_network(width: int) -> Any:
    """CLIP with a projection, of the width of its states."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    words = tiny._tokenizer("sd15")
    config = CLIPTextConfig(
        hidden_size=width,
        projection_dim=width,
        intermediate_size=2 * width,
        num_attention_heads=2,
        num_hidden_layers=2,
        vocab_size=len(words),
        max_position_embeddings=77,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    return CLIPTextModelWithProjection(config).eval()


def t5_tokenizer(length: int) -> Any:
    """Pieces for tiny.WORDS and for every letter; length: what it says of itself."""
    from transformers import T5TokenizerFast

    letters = sorted(
        {letter for word in tiny.WORDS for letter in word} | set("abcdefghijklmnopqrstuvwxyz,.'-{}")
    )
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [(f"▁{word}", -2.0 - 0.01 * i) for i, word in enumerate(tiny.WORDS)]
    pieces += [(letter, -5.0) for letter in letters]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=length)


def t5_network(width: int) -> Any:
    """A T5 encoder of two layers for `t5_tokenizer`."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(t5_tokenizer(8)),
        d_model=width,
        d_kv=8,
        d_ff=2 * width,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config).eval()


MAKERS = {"sd35": lambda: _sd3(True), "sd3": lambda: _sd3(False)}
