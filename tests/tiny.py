"""Tiny, random Stable Diffusion folders, in the layouts of real ones; made in about a second.

    model = tiny_model("sd15")              a fresh model each time; change it as you like
    folder = tiny_folder("sd21")            the folder, made once a session; do not write to it

Kinds: "sd15" (epsilon, PNDM config, old tokenizer files, offset 1), "sd21" (v-prediction, linear
projections, heads per level, "!" as padding), "toy" (like the built-in model: v-prediction,
6 latent channels, 24 tokens, fp16 weights) and "sdxl" (two text encoders, pooled text of another
width than the tokens', picture frame, empty prompts as zeros). Pictures are 32 x 32 (toy: 64 x 64);
the words of WORDS are one token each, other text is spelled out letter by letter.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from understudy.models.unet.stable_diffusion import StableDiffusion

KINDS = ("sd15", "sd21", "toy", "sdxl")
WORDS = "a photo of cat dog bear sks zwx the on in beach red blue sitting toy wooden floor".split()

_UNET: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
}
_V2: dict[str, Any] = {"attention_head_dim": (2, 4), "use_linear_projection": True}
_XL: dict[str, Any] = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 20 + 6 * 4,
    "transformer_layers_per_block": (1, 2),
}
_OFF: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}


def tiny_model(kind: str = "sd15", *, shallow: bool = False, **how: Any) -> StableDiffusion:
    """A freshly loaded tiny model on the CPU; how = device, dtype."""
    return StableDiffusion.from_folder(tiny_folder(kind, shallow), **{"device": "cpu", **how})


@cache
def tiny_folder(kind: str = "sd15", shallow: bool = False) -> Path:
    """The folder of a tiny model, made when first asked for and kept until the session ends."""
    folder = _session() / (f"{kind}-shallow" if shallow else kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(KINDS.index(kind))
        write_tiny(folder, kind, shallow=shallow)
    return folder


def write_tiny(
    folder: Path, kind: str = "sd15", *, published: bool = False, shallow: bool = False
) -> None:
    """Write a tiny model of this kind, from torch's current random state.

    published: with the heads and groups that all published models of the family have, as a single
    checkpoint file takes for granted. shallow: a U-Net of one level, which torch.compile traces
    in half the time.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel

    channels = 6 if kind == "toy" else 4
    unet: dict[str, Any] = {
        **_UNET,
        **({} if kind == "sd15" else _V2),
        **(_XL if kind == "sdxl" else {}),
    }
    if shallow:
        levels = ("block_out_channels", "down_block_types", "up_block_types")
        unet |= {name: unet[name][:1] for name in levels}
    vae_levels = [8] * (3 if kind == "toy" else 2)
    if published:
        heads = 8 if kind == "sd15" else (1, 2)
        unet |= {"block_out_channels": (64, 128), "norm_num_groups": 32}
        unet["attention_head_dim"], vae_levels = heads, [32, 32]
        if kind == "sdxl":
            unet["projection_class_embeddings_input_dim"] = 8 + 6 * 4
    pipeline = _pipeline(kind)(
        unet=UNet2DConditionModel(**unet, in_channels=channels, out_channels=channels),
        vae=AutoencoderKL(
            latent_channels=channels,
            block_out_channels=vae_levels,
            down_block_types=["DownEncoderBlock2D"] * len(vae_levels),
            up_block_types=["UpDecoderBlock2D"] * len(vae_levels),
            norm_num_groups=32 if published else 4,
            scaling_factor={"toy": 0.5, "sdxl": 0.13025}.get(kind, 0.18215),
        ),
        text_encoder=_text_encoder(kind, published),
        tokenizer=_tokenizer(kind),
        scheduler=_scheduler(kind),
        **_rest(kind, published),
    )
    if kind == "toy":
        pipeline.to(dtype=torch.float16, silence_dtype_warnings=True)
    pipeline.save_pretrained(folder)
    if kind == "sd15":
        _old_tokenizer_files(folder / "tokenizer", kind)


def _pipeline(kind: str) -> Any:
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    return StableDiffusionXLPipeline if kind == "sdxl" else StableDiffusionPipeline


def _rest(kind: str, published: bool) -> dict[str, Any]:
    """The parts of a pipeline beyond the common five."""
    if kind != "sdxl":
        return {"requires_safety_checker": False, **_OFF}
    encoder = _text_encoder("second", published)
    second = {"text_encoder_2": encoder, "tokenizer_2": _tokenizer("second")}
    return {**second, "feature_extractor": None, "image_encoder": None, "add_watermarker": False}


def _scheduler(kind: str) -> Any:
    from diffusers import DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler

    curve: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
    curve |= {"beta_schedule": "scaled_linear", "set_alpha_to_one": False}
    if kind == "sd15":
        return PNDMScheduler(**curve, skip_prk_steps=True)
    if kind == "sdxl":
        curve.pop("set_alpha_to_one")
        return EulerDiscreteScheduler(**curve)
    return DDIMScheduler(**curve, clip_sample=False, prediction_type="v_prediction")


def _text_encoder(kind: str, published: bool) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokens = _tokenizer(kind)
    width = {"sdxl": 8, "second": 8}.get(kind, 16)
    config = CLIPTextConfig(
        hidden_size=width,
        projection_dim=8 if published else 20,
        intermediate_size=2 * width,
        num_attention_heads=1 if published else 2,
        num_hidden_layers=2,
        vocab_size=len(tokens),
        max_position_embeddings=24 if kind == "toy" else 77,
        hidden_act="quick_gelu" if kind in ("sd15", "sdxl") else "gelu",
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    return (CLIPTextModelWithProjection if kind == "second" else CLIPTextModel)(config).eval()


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's byte alphabet, with and without the mark of a word's end, and merges for WORDS."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    pieces = letters + [f"{letter}</w>" for letter in letters]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merge = (parts[0], parts[1])
            if merge not in merges:
                merges.append(merge)
                pieces.append("".join(merge))
            parts = ["".join(merge), *parts[2:]]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    return {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}, merges


def _tokenizer(kind: str) -> Any:
    from transformers import CLIPTokenizer

    vocabulary, merges = _vocabulary()
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        model_max_length=24 if kind == "toy" else 77,
        pad_token="!" if kind in ("sd21", "second") else "<|endoftext|>",
    )


def _old_tokenizer_files(folder: Path, kind: str) -> None:
    """vocab.json and merges.txt as the published SD 1.x folders have them."""
    vocabulary, merges = _vocabulary()
    for file in folder.iterdir():
        file.unlink()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@cache
def _session() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="understudy-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
