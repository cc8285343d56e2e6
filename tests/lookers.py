"""Tiny, random CLIP and DINO folders in the layout of published ones; made in about a second."""

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
    text: dict[str, Any] = {**sizes, "num_hidden_layers": 2, "vocab_size": len(tokens)}
    text |= {"bos_token_id": tokens.bos_token_id, "eos_token_id": tokens.eos_token_id}
    vision = {**sizes, "num_hidden_layers": 2, "image_size": SIDE, "patch_size": 8}
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
        hidden_size=16, intermediate_size=32, num_attention_heads=2, num_hidden_layers=2,
        image_size=SIDE, patch_size=8,
    )  # fmt: skip
    folder = _new("dino")
    _seeded(ViTModel, config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def _seeded(kind: Any, config: Any, **how: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return kind(config, **how).eval()


def _new(name: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="understudy-looker-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / name
