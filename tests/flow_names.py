"""A flow transformer's weights under the names of its authors' code, as they would publish them.

Written down here once more and the other way round, so that our reading of such files has something
independent to be held against.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

import ldm

Tensors = dict[str, Tensor]
FUSED = {  # ours, and the fused layer of the original with its letter's place
    "attn.to_q": ("img_attn.qkv", 0), "attn.to_k": ("img_attn.qkv", 1),
    "attn.to_v": ("img_attn.qkv", 2), "attn.add_q_proj": ("txt_attn.qkv", 0),
    "attn.add_k_proj": ("txt_attn.qkv", 1), "attn.add_v_proj": ("txt_attn.qkv", 2),
}  # fmt: skip
DOUBLE = {
    "attn.to_out.0": "img_attn.proj", "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0", "ff.net.2": "img_mlp.2", "ff.linear_in": "img_mlp.0",
    "ff.linear_out": "img_mlp.2", "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2", "ff_context.linear_in": "txt_mlp.0",
    "ff_context.linear_out": "txt_mlp.2", "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin", "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm", "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
}  # fmt: skip
SINGLE = {
    "attn.to_q": ("linear1", 0), "attn.to_k": ("linear1", 1), "attn.to_v": ("linear1", 2),
    "proj_mlp": ("linear1", 3), "attn.to_qkv_mlp_proj": "linear1", "proj_out": "linear2",
    "attn.to_out": "linear2", "norm.linear": "modulation.lin", "attn.norm_q": "norm.query_norm",
    "attn.norm_k": "norm.key_norm",
}  # fmt: skip
FLUX_TOP = {
    "x_embedder": "img_in", "context_embedder": "txt_in", "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_guidance_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_guidance_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
}  # fmt: skip
SD3 = {
    "attn.to_out.0": "x_block.attn.proj", "attn2.to_out.0": "x_block.attn2.proj",
    "attn.to_add_out": "context_block.attn.proj", "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2", "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2", "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "attn.norm_q": "x_block.attn.ln_q", "attn.norm_k": "x_block.attn.ln_k",
    "attn2.norm_q": "x_block.attn2.ln_q", "attn2.norm_k": "x_block.attn2.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q", "attn.norm_added_k": "context_block.attn.ln_k",
}  # fmt: skip
SD3_TOP = {
    "pos_embed.pos_embed": "pos_embed", "pos_embed.proj": "x_embedder.proj",
    "context_embedder": "context_embedder", "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
}  # fmt: skip


def original(family: str, state: Tensors) -> Tensors:
    """The transformer's tensors by their first names. family: "SD3", "FLUX" and so on."""
    if family == "Qwen-Image":
        return dict(state)
    name = {"Z-Image": z_image, "Stable Diffusion 3": sd3}.get(family, flux)
    parts: dict[str, dict[int, Tensor]] = {}
    for ours, value in state.items():
        theirs, place = name(ours)
        parts.setdefault(theirs, {})[place] = value
    found = {key: torch.cat([group[i] for i in sorted(group)]) if len(group) > 1
             else group[0] for key, group in parts.items()}  # fmt: skip
    last = max((int(m[1]) for k in found if (m := re.match(r"joint_blocks\.(\d+)", k))), default=-1)
    for key in found:
        final = key.startswith("final_layer.adaLN") and family != "Z-Image"
        if final or key.startswith(f"joint_blocks.{last}.context_block.adaLN"):
            scale, shift = found[key].chunk(2)
            found[key] = torch.cat([shift, scale])
    return found


def split(name: str) -> tuple[str, str]:
    stem, _, ending = name.rpartition(".")
    return stem, ending


def flux(name: str) -> tuple[str, int]:
    stem, ending = split(name)
    norm = "scale" if re.search(r"attn\.norm_|layer\.norms\.", name) else ending
    if match := re.match(r"transformer_blocks\.(\d+)\.(.*)", stem):
        block = f"double_blocks.{match[1]}"
        if match[2] in FUSED:
            theirs, place = FUSED[match[2]]
            return f"{block}.{theirs}.{ending}", place
        return f"{block}.{DOUBLE[match[2]]}.{norm}", 0
    if match := re.match(r"single_transformer_blocks\.(\d+)\.(.*)", stem):
        theirs = SINGLE[match[2]]
        one, place = (theirs, 0) if isinstance(theirs, str) else theirs
        return f"single_blocks.{match[1]}.{one}.{norm}", place
    if name.startswith("distilled_guidance_layer"):
        stem = stem.replace("linear_1", "in_layer").replace("linear_2", "out_layer")
        return f"{stem}.{norm}", 0
    stem = re.sub(r"(stream_modulation\w*)\.linear", r"\1.lin", stem)
    return f"{FLUX_TOP.get(stem, stem)}.{ending}", 0


def sd3(name: str) -> tuple[str, int]:
    stem, ending = split(name)
    match = re.match(r"transformer_blocks\.(\d+)\.(.*)", stem)
    if not match:
        return (SD3_TOP[name], 0) if name in SD3_TOP else (f"{SD3_TOP[stem]}.{ending}", 0)
    block = f"joint_blocks.{match[1]}"
    if found := re.fullmatch(r"(attn2?)\.to_([qkv])", match[2]):
        return f"{block}.x_block.{found[1]}.qkv.{ending}", "qkv".index(found[2])
    if found := re.fullmatch(r"attn\.add_([qkv])_proj", match[2]):
        return f"{block}.context_block.attn.qkv.{ending}", "qkv".index(found[1])
    return f"{block}.{SD3[match[2]]}.{ending}", 0


def z_image(name: str) -> tuple[str, int]:
    if found := re.match(r"(.*\.attention)\.to_([qkv])\.weight", name):
        return f"{found[1]}.qkv.weight", "qkv".index(found[2])
    for ours, theirs in (("all_x_embedder.2-1", "x_embedder"), ("norm_q", "q_norm"),
                         ("all_final_layer.2-1", "final_layer"), ("norm_k", "k_norm"),
                         ("attention.to_out.0", "attention.out")):  # fmt: skip
        name = name.replace(ours, theirs)
    return name, 0


def all_in_one(folder: Path, family: str, encoders: dict[str, str], vae: str) -> Tensors:
    """Everything in a folder as ComfyUI writes it in one file. encoders: its names of them by
    folder; vae: what stands in front of the autoencoder's names."""
    parts = {part: load_file(next((folder / part).glob("*.safetensors")))
             for part in ("transformer", "vae", *encoders)}  # fmt: skip
    found = {f"model.diffusion_model.{name}": value
             for name, value in original(family, parts["transformer"]).items()}  # fmt: skip
    found |= {f"{vae}{ldm.vae(name)}": ldm.square(name, value)
              for name, value in parts["vae"].items()}  # fmt: skip
    for part, theirs in encoders.items():
        prefix = f"text_encoders.{theirs}."
        for name, value in parts[part].items():
            clip = "clip" in theirs and not name.startswith(("text_model.", "text_projection."))
            found[f"{prefix}transformer.{'text_model.' if clip else ''}{name}"] = value
        found[f"{prefix}logit_scale"] = torch.ones(())
    return {name: value.contiguous() for name, value in found.items()}
