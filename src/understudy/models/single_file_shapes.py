"""What the shapes of a single checkpoint file's tensors say: its family, and each network's size.

What shapes cannot say is the family's: 8 heads in 1.x, heads of 64 channels in 2.x and XL and in
every text encoder, groups of 32 channels, the autoencoder's scaling factor.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from understudy.errors import ModelError, listed

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP_1, CLIP_2 = "cond_stage_model.transformer.", "cond_stage_model.model."
CLIP_XL, OPEN_CLIP_XL = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
NEEDED = {  # family: the parts of the file, as messages call them
    "1": {UNET: "U-Net", VAE: "autoencoder", CLIP_1: "text encoder"},
    "2": {UNET: "U-Net", VAE: "autoencoder", CLIP_2: "text encoder"},
    "xl": {UNET: "U-Net", VAE: "autoencoder", CLIP_XL: "first text encoder",
           OPEN_CLIP_XL: "second text encoder"},
}  # fmt: skip
# Of the training of an autoencoder, and of the parts of CLIP that see pictures.
UNREAD = re.compile(
    r"^first_stage_model\.(loss|model_ema)\.|\.(visual\.|logit_scale$|attn_mask$|position_ids$)"
)
# Averaged weights, tables that follow from the schedule, and marks; see `single_file_marks`.
FOLLOWS = re.compile(
    r"(model_ema\.|betas$|(sqrt_|log_)?(one_minus_|recip_|recipm1_)?alphas_cumprod|sqrt_|log_one_|"
    r"posterior_|lvlb_weights$|logvar$|scale_factor$|denoiser\.sigmas$|v_pred$|ztsnr$)"
)
HEAD = 64
Tensors = Mapping[str, Tensor]


@runtime_checkable
class Shaped(Protocol):
    """A tensor, or what a file's header says of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        ...


def family_of(file: Path, tensors: Tensors) -> str:
    """ "1", "2" or "xl"; ModelError, naming what is missing, for anything but a whole model."""

    def has(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in tensors)

    if not has(UNET):
        raise ModelError(
            f"{file} is not a full checkpoint of a supported model: it has no {UNET}* weights, nor "
            "those of a flow transformer under their original names. For a LoRA or an embedding "
            "use: understudy concept import."
        )
    if has("conditioner.embedders.0.model."):
        raise ModelError(f"{file} is an XL refiner. Use the XL base model.")
    family = "xl" if has("conditioner.") else "2" if has(CLIP_2) else "1"
    missing = [name for prefix, name in NEEDED[family].items() if not has(prefix)]
    if missing:
        raise ModelError(
            f"{file} lacks its {' and '.join(missing)}. Get the full checkpoint of this model."
        )
    return family


def unplaced(file: Path, family: str, tensors: Tensors) -> str:
    """One line on the tensors outside the parts of the model, by the first word of their names;
    "" where there are none."""
    parts = tuple(NEEDED[family])
    others = (name for name in tensors if not name.startswith(parts) and not FOLLOWS.match(name))
    counts = Counter(name.split(".")[0][:60] for name in others if not UNREAD.search(name))
    if not counts:
        return ""
    shown = listed(f"{name} ({count})" for name, count in sorted(counts.items()))
    return f"{file.name} has tensors that its model does not use; they are ignored: {shown}."


def refuse_unused(
    file: Path, part: str, own: Mapping[str, Tensor], used: Mapping[str, Tensor]
) -> None:
    """Raise ModelError for tensors of a part that are not among those used, nor known as unread.

    A used tensor begins in memory where the file's tensor does; it may be a view of it.
    """
    there = {value.data_ptr() for value in used.values()}
    names = [n for n, value in own.items() if value.numel() and value.data_ptr() not in there]
    if unknown := sorted(name for name in names if not UNREAD.search(name)):
        raise ModelError(
            f"{file} holds {len(unknown)} tensors that no {part} of its family has, the first "
            f"is {unknown[0][:100]!r}. It belongs to another kind of model."
        )


def unet_config(tensors: Tensors) -> dict[str, Any]:
    """diffusers' configuration of the U-Net, all but the picture size."""
    levels = _levels(tensors)
    depths = [blocks[0][1] for blocks in levels]
    channels = [blocks[0][0] for blocks in levels]
    linear = tensors[_first(tensors, UNET, "proj_in.weight")].ndim == 2
    config: dict[str, Any] = {
        "_class_name": "UNet2DConditionModel",
        "in_channels": tensors[f"{UNET}input_blocks.0.0.weight"].shape[1],
        "out_channels": tensors[f"{UNET}out.2.weight"].shape[0],
        "block_out_channels": channels,
        "layers_per_block": len(levels[0]),
        "down_block_types": ["CrossAttnDownBlock2D" if d else "DownBlock2D" for d in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if d else "UpBlock2D" for d in depths[::-1]],
        "transformer_layers_per_block": [depth or 1 for depth in depths],
        "cross_attention_dim": tensors[_first(tensors, UNET, "attn2.to_k.weight")].shape[1],
        "attention_head_dim": [max(1, c // HEAD) for c in channels] if linear else 8,
        "use_linear_projection": linear,
    }
    if f"{UNET}label_emb.0.0.weight" in tensors:
        added = tensors[f"{UNET}label_emb.0.0.weight"].shape[1]
        pooled = tensors[f"{OPEN_CLIP_XL}text_projection"].shape[1]
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": (added - pooled) // 6,
            "projection_class_embeddings_input_dim": added,
        }
    return config


def _levels(tensors: Tensors) -> list[list[tuple[int, int]]]:
    """Of each level of the encoder, each block's channels and its number of transformer layers."""
    levels: list[list[tuple[int, int]]] = [[]]
    for number in range(1, _count(tensors, rf"{re.escape(UNET)}input_blocks\.(\d+)\.")):
        block = f"{UNET}input_blocks.{number}."
        if f"{block}0.op.weight" in tensors:
            levels.append([])
            continue
        width = tensors[f"{block}0.out_layers.3.weight"].shape[0]
        layers = _count(tensors, rf"{re.escape(block)}1\.transformer_blocks\.(\d+)\.")
        levels[-1].append((width, layers))
    return levels


def vae_config(tensors: Tensors, scaling_factor: float) -> dict[str, Any]:
    """diffusers' configuration of the autoencoder."""
    count = _count(tensors, rf"{re.escape(VAE)}encoder\.down\.(\d+)\.")
    first = [f"{VAE}encoder.down.{level}.block.0.conv1.weight" for level in range(count)]
    layers = _count(tensors, rf"{re.escape(VAE)}encoder\.down\.0\.block\.(\d+)\.")
    return {
        "_class_name": "AutoencoderKL",
        "latent_channels": tensors[f"{VAE}post_quant_conv.weight"].shape[1],
        "block_out_channels": [tensors[name].shape[0] for name in first],
        "layers_per_block": layers,
        "down_block_types": ["DownEncoderBlock2D"] * count,
        "up_block_types": ["UpDecoderBlock2D"] * count,
        "scaling_factor": scaling_factor,
    }


def clip_config(
    tensors: Mapping[str, Shaped], prefix: str, act: str = "quick_gelu"
) -> dict[str, Any]:
    """transformers' configuration of a CLIP text encoder. act: OpenAI's own, "gelu" of others."""
    layers = _count(tensors, rf"{re.escape(prefix)}.*encoder\.layers\.(\d+)\.")
    words = tensors[_first(tensors, prefix, "token_embedding.weight")]
    places = tensors[_first(tensors, prefix, "position_embedding.weight")]
    inner = tensors[_first(tensors, prefix, "layers.0.mlp.fc1.weight")].shape[0]
    return _text_config(words, places, layers, inner, act, words.shape[1])


def open_clip_config(tensors: Tensors, prefix: str, *, unread: int) -> dict[str, Any]:
    """transformers' configuration of OpenCLIP's, without its `unread` last layers."""
    layers = _count(tensors, rf"{re.escape(prefix)}transformer\.resblocks\.(\d+)\.") - unread
    words = tensors[f"{prefix}token_embedding.weight"]
    places = tensors[f"{prefix}positional_embedding"]
    inner = tensors[f"{prefix}transformer.resblocks.0.mlp.c_fc.weight"].shape[0]
    pooled = tensors.get(f"{prefix}text_projection", words).shape[1]
    return _text_config(words, places, layers, inner, "gelu", pooled)


def _text_config(
    words: Shaped, places: Shaped, layers: int, inner: int, act: str, pooled: int
) -> dict[str, Any]:
    count, width = words.shape
    return {
        "model_type": "clip_text_model",
        "vocab_size": count,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // HEAD),
        "max_position_embeddings": places.shape[0],
        "hidden_act": act,
        "projection_dim": pooled,
        "bos_token_id": count - 2,
        "eos_token_id": count - 1,
        "pad_token_id": count - 1,
    }


def _count(tensors: Iterable[str], pattern: str) -> int:
    """One more than the highest number that names show at the pattern's group."""
    found = [re.match(pattern, name) for name in tensors]
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _first(tensors: Iterable[str], prefix: str, ending: str) -> str:
    for name in tensors:
        if name.startswith(prefix) and name.endswith(ending):
            return name
    raise ModelError(f"The checkpoint is incomplete: it has no {prefix}*{ending}.")


Configure = Callable[[Tensors], dict[str, Any]]
CONFIGS: dict[str, dict[str, Configure]] = {
    "1": {
        "unet": unet_config,
        "vae": lambda t: vae_config(t, 0.18215),
        "text_encoder": lambda t: clip_config(t, CLIP_1),
    },
    "2": {
        "unet": unet_config,
        "vae": lambda t: vae_config(t, 0.18215),
        "text_encoder": lambda t: open_clip_config(t, CLIP_2, unread=1),
    },
    "xl": {
        "unet": unet_config,
        "vae": lambda t: vae_config(t, 0.13025),
        "text_encoder": lambda t: clip_config(t, CLIP_XL),
        "text_encoder_2": lambda t: open_clip_config(t, OPEN_CLIP_XL, unread=0),
    },
}
