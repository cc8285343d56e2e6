"""The names of flow transformers in their authors' code, and layers that are fused there.

Checkpoint files of Black Forest Labs, Stability AI and ComfyUI and LoRA files of kohya's trainers
name layers as the original code does: one `qkv` for the three projections of diffusers, one
`linear1` for these and the MLP of a FLUX single block. Names and shapes only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

PART = "transformer."
Shapes = Mapping[str, tuple[int, ...]]

# Original path: our paths, whose rows follow each other there. {} is the number of the block.
_DOUBLE = {
    "{}img_attn.qkv": "{}attn.to_q {}attn.to_k {}attn.to_v",
    "{}img_attn.proj": "{}attn.to_out.0",
    "{}txt_attn.qkv": "{}attn.add_q_proj {}attn.add_k_proj {}attn.add_v_proj",
    "{}txt_attn.proj": "{}attn.to_add_out",
    "{}img_mlp.0": "{}ff.net.0.proj|{}ff.linear_in",
    "{}img_mlp.2": "{}ff.net.2|{}ff.linear_out",
    "{}txt_mlp.0": "{}ff_context.net.0.proj|{}ff_context.linear_in",
    "{}txt_mlp.2": "{}ff_context.net.2|{}ff_context.linear_out",
    "{}img_mod.lin": "{}norm1.linear",
    "{}txt_mod.lin": "{}norm1_context.linear",
    "{}img_attn.norm.query_norm": "{}attn.norm_q",
    "{}img_attn.norm.key_norm": "{}attn.norm_k",
    "{}txt_attn.norm.query_norm": "{}attn.norm_added_q",
    "{}txt_attn.norm.key_norm": "{}attn.norm_added_k",
}
_SINGLE = {
    "{}linear1": "{}attn.to_q {}attn.to_k {}attn.to_v {}proj_mlp|{}attn.to_qkv_mlp_proj",
    "{}linear2": "{}proj_out|{}attn.to_out",
    "{}modulation.lin": "{}norm.linear",
    "{}norm.query_norm": "{}attn.norm_q",
    "{}norm.key_norm": "{}attn.norm_k",
}
_JOINT = {
    "{}x_block.attn.qkv": "{}attn.to_q {}attn.to_k {}attn.to_v",
    "{}x_block.attn.proj": "{}attn.to_out.0",
    "{}x_block.attn2.qkv": "{}attn2.to_q {}attn2.to_k {}attn2.to_v",
    "{}x_block.attn2.proj": "{}attn2.to_out.0",
    "{}context_block.attn.qkv": "{}attn.add_q_proj {}attn.add_k_proj {}attn.add_v_proj",
    "{}context_block.attn.proj": "{}attn.to_add_out",
    "{}x_block.mlp.fc1": "{}ff.net.0.proj",
    "{}x_block.mlp.fc2": "{}ff.net.2",
    "{}context_block.mlp.fc1": "{}ff_context.net.0.proj",
    "{}context_block.mlp.fc2": "{}ff_context.net.2",
    "{}x_block.adaLN_modulation.1": "{}norm1.linear",
    "{}context_block.adaLN_modulation.1": "{}norm1_context.linear",
    **{
        f"{{}}{block}.{layer}.ln_{letter}": f"{{}}{layer}.norm_{added}{letter}"
        for block, layer, added in (
            ("x_block", "attn", ""),
            ("x_block", "attn2", ""),
            ("context_block", "attn", "added_"),
        )
        for letter in "qk"
    },
}
_ALIKE = {
    "{}attention.qkv": "{}attention.to_q {}attention.to_k {}attention.to_v",
    "{}attention.out": "{}attention.to_out.0",
    "{}attention.q_norm": "{}attention.norm_q",
    "{}attention.k_norm": "{}attention.norm_k",
}
_GUIDANCE = {"{}in_layer": "{}linear_1", "{}out_layer": "{}linear_2"}  # Chroma's approximator
_EMBEDDERS = "time_text_embed.{0}_embedder.linear_{1}|time_guidance_embed.{0}_embedder.linear_{1}"
_FLUX_TOP = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    **{
        f"{name}.lin": f"{name}.linear"
        for name in ("double_stream_modulation_img", "double_stream_modulation_txt",
                     "single_stream_modulation")
    },
    **{
        f"{theirs}.{layer}_layer": _EMBEDDERS.format(ours, number)
        for theirs, ours in (("time_in", "timestep"), ("vector_in", "text"),
                             ("guidance_in", "guidance"))
        for number, layer in ((1, "in"), (2, "out"))
    },
}  # fmt: skip
_SD3_TOP = {
    "x_embedder.proj": "pos_embed.proj",
    "context_embedder": "context_embedder",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    **{
        f"{theirs}.mlp.{layer}": _EMBEDDERS.format(ours, number)
        for theirs, ours in (("t_embedder", "timestep"), ("y_embedder", "text"))
        for number, layer in ((1, 0), (2, 2))
    },
}
_Z_TOP = {
    "x_embedder": "all_x_embedder.2-1",
    "final_layer.linear": "all_final_layer.2-1.linear",
    "final_layer.adaLN_modulation.1": "all_final_layer.2-1.adaLN_modulation.1",
}


@dataclass(frozen=True)
class Fused:
    """A layer of the original code. weights: ours, in the order of its rows. swapped: whether the
    two halves of the rows (shift, scale) stand in the other order in diffusers."""

    weights: tuple[str, ...]
    swapped: bool = False


def original_table(weights: Shapes) -> dict[str, Fused]:
    """Layers of the original code by their path, for the transformer that these weights are of.

    Empty for other models, and for families whose trainers use diffusers' names (Qwen-Image).
    """
    if any(name.startswith(f"{PART}single_transformer_blocks.") for name in weights):
        kinds = [
            ("double_blocks.", "transformer_blocks.", _DOUBLE),
            ("single_blocks.", "single_transformer_blocks.", _SINGLE),
            ("distilled_guidance_layer.layers.", "distilled_guidance_layer.layers.", _GUIDANCE),
            ("", "", _FLUX_TOP),
        ]
    elif f"{PART}pos_embed.proj.weight" in weights:
        kinds = [("joint_blocks.", "transformer_blocks.", _JOINT), ("", "", _SD3_TOP)]
    else:
        lists = ("layers.", "noise_refiner.", "context_refiner.")
        kinds = [*[(one, one, _ALIKE) for one in lists], ("", "", _Z_TOP)]
    found: dict[str, Fused] = {}
    for theirs, ours, table in kinds:
        numbers = {
            f"{match[1]}."
            for name in weights
            if ours and (match := re.match(rf"{PART}{re.escape(ours)}(\d+)\.", name))
        }
        for number in sorted(numbers) if ours else [""]:
            for path, targets in table.items():
                for choice in targets.split("|"):
                    named = choice.format(*[f"{ours}{number}"] * choice.count("{}")).split()
                    full = tuple(f"{PART}{one}.weight" for one in named)
                    if all(one in weights for one in full):
                        key = path.format(f"{theirs}{number}")
                        found[key] = Fused(full, _swapped(path, full, weights))
                        break
    return found


def _swapped(path: str, full: tuple[str, ...], weights: Shapes) -> bool:
    """norm_out, and the text's modulation in SD3's last block, which has two parts, not six."""
    if path.startswith("final_layer.adaLN"):
        return full[0] == f"{PART}norm_out.linear.weight"
    outputs, inputs = weights[full[0]][0], weights[full[0]][-1]
    return path.startswith("{}context_block.adaLN") and outputs == 2 * inputs
