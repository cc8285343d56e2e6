"""A diffusers folder as the single checkpoint file that the authors of its family would publish.

The names are those of CompVis' and Stability's code, written down here once more and the other way
round, so that our reading of such files has something independent to be held against.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

RESNET = {
    "norm1.": "in_layers.0.", "conv1.": "in_layers.2.", "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.", "time_emb_proj.": "emb_layers.1.",
    "conv_shortcut.": "skip_connection.",
}  # fmt: skip
TOP = {
    "time_embedding.linear_1.": "time_embed.0.", "time_embedding.linear_2.": "time_embed.2.",
    "add_embedding.linear_1.": "label_emb.0.0.", "add_embedding.linear_2.": "label_emb.0.2.",
    "conv_in.": "input_blocks.0.0.", "conv_norm_out.": "out.0.", "conv_out.": "out.2.",
}  # fmt: skip


def single_file(folder: Path) -> dict[str, Tensor]:
    """All weights of a tiny folder under their first names."""
    found = {part.name: load_file(next(part.glob("*.safetensors")))
             for part in folder.iterdir() if list(part.glob("*.safetensors"))}  # fmt: skip
    tensors = {f"model.diffusion_model.{unet(k, found['unet'])}": v
               for k, v in found["unet"].items()}  # fmt: skip
    tensors |= {f"first_stage_model.{vae(k)}": square(k, v) for k, v in found["vae"].items()}
    text = found["text_encoder"]
    if "text_encoder_2" in found:
        first, second = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
        return tensors | clip(text, first) | open_clip(found["text_encoder_2"], second)
    if (
        re.search(r"linear", (folder / "unet" / "config.json").read_text())
        and found["unet"]["down_blocks.0.attentions.0.proj_in.weight"].ndim == 2
    ):
        tensors |= open_clip(text, "cond_stage_model.model.")
        # 2.x carries a last layer that nobody reads.
        last = {k: v for k, v in tensors.items() if ".model.transformer.resblocks.1." in k}
        unread = {k.replace("resblocks.1.", "resblocks.2."): v + 1 for k, v in last.items()}
        return tensors | unread
    return tensors | clip(text, "cond_stage_model.transformer.")


def unet(name: str, all_names: dict[str, Tensor], layers: int = 1) -> str:
    for ours, theirs in TOP.items():
        if name.startswith(ours):
            return name.replace(ours, theirs)
    kind, _, rest = name.partition(".")
    if kind == "mid_block":
        part, number, inner = rest.split(".", 2)
        place = 1 if part == "attentions" else 2 * int(number)
        return f"middle_block.{place}.{resnet(inner) if part == 'resnets' else inner}"
    level, part, number, inner = rest.split(".", 3)
    if kind == "down_blocks":
        if part == "downsamplers":
            inner = inner.replace("conv.", "op.")
            return f"input_blocks.{(int(level) + 1) * (layers + 1)}.0.{inner}"
        block = f"input_blocks.{1 + int(level) * (layers + 1) + int(number)}"
    else:
        block = f"output_blocks.{int(level) * (layers + 1) + int(number)}"
    if part == "upsamplers":
        attends = any(k.startswith(f"up_blocks.{level}.attentions") for k in all_names)
        return f"output_blocks.{int(level) * (layers + 1) + layers}.{1 + attends}.{inner}"
    return f"{block}.0.{resnet(inner)}" if part == "resnets" else f"{block}.1.{inner}"


def resnet(name: str) -> str:
    for ours, theirs in RESNET.items():
        if name.startswith(ours):
            return name.replace(ours, theirs)
    raise AssertionError(name)


def vae(name: str, levels: int = 2) -> str:
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    up = re.match(r"decoder\.up_blocks\.(\d+)\.", name)
    if up:
        name = name.replace(up[0], f"decoder.up.{levels - 1 - int(up[1])}.")
        name = name.replace("resnets.", "block.").replace("upsamplers.0", "upsample")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    for ours, theirs in {
        "mid_block.attentions.0.": "mid.attn_1.", "group_norm.": "norm.", "to_q.": "q.",
        "to_k.": "k.", "to_v.": "v.", "to_out.0.": "proj_out.", "conv_norm_out": "norm_out",
        "conv_shortcut": "nin_shortcut",
    }.items():  # fmt: skip
        name = name.replace(ours, theirs)
    return name


def square(name: str, value: Tensor) -> Tensor:
    """The autoencoder's attention was made of 1 x 1 convolutions."""
    linear = re.search(r"\.to_(q|k|v|out\.0)\.weight", name)
    return value[:, :, None, None] if linear else value


def clip(text: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}text_model.{k.removeprefix('text_model.')}": v for k, v in text.items()}


def open_clip(text: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    text = {k.removeprefix("text_model."): v for k, v in text.items()}
    named: dict[str, Tensor] = {}
    for name, value in text.items():
        attention = re.match(r"(encoder\.layers\.\d+\.self_attn\.)([qkv])_proj\.(\w+)", name)
        if attention:
            stem, which, kind = attention.groups()
            if which == "q":
                parts = [text[f"{stem}{letter}_proj.{kind}"] for letter in "qkv"]
                named[f"{stem}in_proj_{kind}"] = torch.cat(parts)
        elif name == "text_projection.weight":
            named["text_projection"] = value.T
        else:
            named[name] = value
    # A checkpoint of 2.x has a projection too, which nobody reads.
    named.setdefault("text_projection", torch.eye(text["final_layer_norm.weight"].shape[0]))
    changes = {
        "embeddings.token_embedding.": "token_embedding.", "self_attn.": "attn.",
        "embeddings.position_embedding.weight": "positional_embedding",
        "encoder.layers.": "transformer.resblocks.", "layer_norm1.": "ln_1.",
        "layer_norm2.": "ln_2.", "fc1.": "c_fc.", "fc2.": "c_proj.",
        "final_layer_norm.": "ln_final.",
    }  # fmt: skip
    for ours, theirs in changes.items():
        named = {name.replace(ours, theirs): value for name, value in named.items()}
    return {f"{prefix}{name}": value.contiguous() for name, value in named.items()}
