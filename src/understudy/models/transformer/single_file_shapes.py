"""What the names and shapes of a flow model's checkpoint file say: its family and its sizes.

What shapes cannot say is the published models': heads of 128 channels (64 in SD3 and in every text
encoder), the axes of rotary positions, the scales of the autoencoders' latents.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

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
from understudy.models.weight_files import Entry
from understudy.settings.checkpoints import GUIDED, flow_mark

HEAD, SD3_HEAD = 128, 64
# Of latents: scaling and shift of each family's autoencoder, as published with it.
SCALES = {SD3.name: (1.5305, 0.0609), FLUX.name: (0.3611, 0.1159), CHROMA.name: (0.3611, 0.1159),
          Z_IMAGE.name: (0.3611, 0.1159)}  # fmt: skip
Entries = Mapping[str, Entry]
FAMILIES = {"StableDiffusion3": SD3, "Flux2": FLUX2, "Chroma": CHROMA, "Flux": FLUX,
            "QwenImage": QWEN_IMAGE, "ZImage": Z_IMAGE}  # fmt: skip
# Names of text encoders in ComfyUI's files, by family and folder.
CLIP_L, CLIP_G, T5 = "clip_l", "clip_g", "t5xxl"
ENCODERS: dict[str, dict[str, tuple[str, ...]]] = {
    SD3.name: {"text_encoder": (CLIP_L,), "text_encoder_2": (CLIP_G,), "text_encoder_3": (T5,)},
    FLUX.name: {"text_encoder": (CLIP_L,), "text_encoder_2": (T5,)},
    CHROMA.name: {"text_encoder": (T5,)},
    QWEN_IMAGE.name: {"text_encoder": ("qwen25_7b",)},
    Z_IMAGE.name: {"text_encoder": ("qwen3_4b",)},
    FLUX2_KLEIN.name: {"text_encoder": ("qwen3_4b", "qwen3_8b")},
    FLUX2.name: {"text_encoder": ("mistral3_24b",)},
}


@dataclass(frozen=True)
class Layout:
    """Which model a file holds. prefix: in front of the names of its transformer."""

    family: Family
    prefix: str

    def encoder_prefix(self, part: str, names: Iterable[str]) -> str | None:
        """In front of the names of a text encoder; None where the file has none for this part."""
        known = [f"text_encoders.{one}." for one in ENCODERS[self.family.name][part]]
        found = next((p for p in known if any(name.startswith(p) for name in names)), None)
        return None if found is None else f"{found}transformer."


def layout_of(entries: Entries) -> Layout | None:
    """The layout of a flow model's file, None for other files."""
    found = flow_mark(entries)
    if found is None:
        return None
    prefix, family = found[0], FAMILIES[found[1]]
    if family is FLUX2 and f"{prefix}{GUIDED}" not in entries:
        family = FLUX2_KLEIN
    return Layout(family, prefix)


def transformer_config(family: Family, found: Entries) -> dict[str, Any]:
    """diffusers' configuration of the transformer. found: its entries without their prefix.

    Raises KeyError for a tensor that is not there.
    """
    return {"_class_name": family.network, **_CONFIGS[family.name](found)}


def _sd3(found: Entries) -> dict[str, Any]:
    width, channels, patch, _ = found["x_embedder.proj.weight"].shape
    dual = {int(m[1]) for m in _matches(found, r"joint_blocks\.(\d+)\.x_block\.attn2\.")}
    side = round(found["pos_embed"].shape[1] ** 0.5)
    return {
        "sample_size": 128,
        "patch_size": patch,
        "in_channels": channels,
        "out_channels": channels,
        "num_layers": _count(found, r"joint_blocks\.(\d+)\."),
        "attention_head_dim": SD3_HEAD,
        "num_attention_heads": width // SD3_HEAD,
        "joint_attention_dim": found["context_embedder.weight"].shape[1],
        "caption_projection_dim": width,
        "pooled_projection_dim": found["y_embedder.mlp.0.weight"].shape[1],
        "pos_embed_max_size": side,
        "dual_attention_layers": sorted(dual),
        "qk_norm": "rms_norm" if "joint_blocks.0.x_block.attn.ln_q.weight" in found else None,
    }


def _blocks(found: Entries) -> dict[str, Any]:
    """What FLUX.1, FLUX.2 and Chroma have in common."""
    width, channels = found["img_in.weight"].shape
    given = found["final_layer.linear.weight"].shape[0]
    return {
        "in_channels": channels,
        **({"out_channels": given} if given != channels else {}),  # inpainting and control models
        "num_layers": _count(found, r"double_blocks\.(\d+)\."),
        "num_single_layers": _count(found, r"single_blocks\.(\d+)\."),
        "attention_head_dim": HEAD,
        "num_attention_heads": width // HEAD,
        "joint_attention_dim": found["txt_in.weight"].shape[1],
    }


def _flux(found: Entries) -> dict[str, Any]:
    return {
        **_blocks(found),
        "pooled_projection_dim": found["vector_in.in_layer.weight"].shape[1],
        "guidance_embeds": GUIDED in found,
        "axes_dims_rope": [16, 56, 56],
    }


def _flux2(found: Entries) -> dict[str, Any]:
    return {
        **_blocks(found),
        "timestep_guidance_channels": found["time_in.in_layer.weight"].shape[1],
        "guidance_embeds": GUIDED in found,
        "axes_dims_rope": [32, 32, 32, 32],
    }


def _chroma(found: Entries) -> dict[str, Any]:
    hidden, channels = found["distilled_guidance_layer.in_proj.weight"].shape
    return {
        **_blocks(found),
        "approximator_num_channels": channels,
        "approximator_hidden_dim": hidden,
        "approximator_layers": _count(found, r"distilled_guidance_layer\.layers\.(\d+)\."),
        "axes_dims_rope": [16, 56, 56],
    }


def _qwen(found: Entries) -> dict[str, Any]:
    width, channels = found["img_in.weight"].shape
    return {
        "patch_size": 2,
        "in_channels": channels,
        "out_channels": found["proj_out.weight"].shape[0] // 4,
        "num_layers": _count(found, r"transformer_blocks\.(\d+)\."),
        "attention_head_dim": HEAD,
        "num_attention_heads": width // HEAD,
        "joint_attention_dim": found["txt_in.weight"].shape[1],
        "axes_dims_rope": [16, 56, 56],
    }


def _z_image(found: Entries) -> dict[str, Any]:
    width, channels = found["x_embedder.weight"].shape
    return {
        "in_channels": channels // 4,
        "dim": width,
        "n_layers": _count(found, r"layers\.(\d+)\."),
        "n_refiner_layers": _count(found, r"noise_refiner\.(\d+)\."),
        "n_heads": width // HEAD,
        "n_kv_heads": width // HEAD,
        "cap_feat_dim": found["cap_embedder.1.weight"].shape[1],
        "axes_dims": [32, 48, 48],
        "axes_lens": [1536, 512, 512],
    }


_CONFIGS: dict[str, Callable[[Entries], dict[str, Any]]] = {
    SD3.name: _sd3, FLUX.name: _flux, CHROMA.name: _chroma, FLUX2.name: _flux2,
    FLUX2_KLEIN.name: _flux2, QWEN_IMAGE.name: _qwen, Z_IMAGE.name: _z_image,
}  # fmt: skip


def t5_config(found: Entries) -> dict[str, Any]:
    """transformers' configuration of a T5 encoder of version 1.1, as T5-XXL's."""
    first = "encoder.block.0.layer."
    words, width = found["shared.weight"].shape
    return {
        "model_type": "t5",
        "architectures": ["T5EncoderModel"],
        "vocab_size": words,
        "d_model": width,
        "d_kv": SD3_HEAD,
        "d_ff": found[f"{first}1.DenseReluDense.wi_0.weight"].shape[0],
        "num_layers": _count(found, r"encoder\.block\.(\d+)\."),
        "num_heads": found[f"{first}0.SelfAttention.q.weight"].shape[0] // SD3_HEAD,
        "relative_attention_num_buckets": found[
            f"{first}0.SelfAttention.relative_attention_bias.weight"
        ].shape[0],
        "feed_forward_proj": "gated-gelu",
    }


def autoencoder_config(family: Family, found: Entries) -> dict[str, Any]:
    """diffusers' configuration of an AutoencoderKL. found: its entries without their prefix."""
    levels = _count(found, r"encoder\.down\.(\d+)\.")
    factor, shift = SCALES[family.name]
    return {
        "_class_name": "AutoencoderKL",
        "latent_channels": found["decoder.conv_in.weight"].shape[1],
        "block_out_channels": [
            found[f"encoder.down.{level}.block.0.conv1.weight"].shape[0] for level in range(levels)
        ],
        "layers_per_block": _count(found, r"encoder\.down\.0\.block\.(\d+)\."),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "use_quant_conv": "quant_conv.weight" in found,
        "use_post_quant_conv": "post_quant_conv.weight" in found,
        "scaling_factor": factor,
        "shift_factor": shift,
        "sample_size": 1024,
    }


def _matches(found: Entries, pattern: str) -> list[re.Match[str]]:
    return [match for name in found if (match := re.match(pattern, name))]


def _count(found: Entries, pattern: str) -> int:
    """One more than the highest number that names show at the pattern's group."""
    return 1 + max((int(match[1]) for match in _matches(found, pattern)), default=-1)
