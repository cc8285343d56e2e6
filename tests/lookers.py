"""Tiny, random CLIP, DINO and SAM 2 folders in the layout of published ones, made in a second."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

import tiny

SIDE = 32


@cache
def clip_folder() -> Path:
    """A CLIPModel of 32-pixel pictures and 12-number embeddings, with its tokenizer."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    vocabulary, merges = tiny._vocabulary()
    tokens = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    text: dict[str, Any] = {**sizes, "num_hidden_layers": 1, "vocab_size": len(tokens)}
    text |= {"bos_token_id": tokens.bos_token_id, "eos_token_id": tokens.eos_token_id}
    vision = {**sizes, "num_hidden_layers": 1, "image_size": SIDE, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    folder = _new("clip")
    _seeded(CLIPModel, config).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


@cache
def dino_folder() -> Path:
    """A ViTModel of 32-pixel pictures and 16 numbers."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=16, intermediate_size=32, num_attention_heads=2, num_hidden_layers=1,
        image_size=SIDE, patch_size=8,
    )  # fmt: skip
    folder = _new("dino")
    _seeded(ViTModel, config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@cache
def sam_folder() -> Path:
    """A Sam2Model of 64-pixel pictures."""
    from transformers import Sam2Config, Sam2Model

    backbone = {
        "hidden_size": 8, "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [4, 4, 4, 4],
        "global_attention_blocks": [3], "image_size": [64, 64],
        "window_positional_embedding_background_size": [4, 4],
    }  # fmt: skip
    config = Sam2Config(
        vision_config={
            "backbone_config": {"model_type": "sam2_hiera_det_model", **backbone},
            "backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": 16,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 16,
                               "mask_input_channels": 8},
        mask_decoder_config={"hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 1,
                             "num_attention_heads": 2, "iou_head_hidden_dim": 16},
    )  # fmt: skip
    folder = _new("sam")
    _seeded(Sam2Model, config).save_pretrained(folder)
    return folder


def _seeded(kind: Any, config: Any, **how: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return kind(config, **how).eval()


def _new(name: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="understudy-looker-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / name
