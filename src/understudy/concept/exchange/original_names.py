"""The names of flow transformers in their authors' code, and layers that are fused there.

kohya's trainers, ComfyUI and Black Forest Labs name layers as the original code does: one `qkv` for
the three projections of diffusers, one `linear1` for these and the MLP of a FLUX single block.
ComfyUI and ai-toolkit put "diffusion_model." in front, kohya "lora_unet_" with underscores.

Splitting a fused low-rank change copies A and cuts B by rows. Joining stacks the As and makes B
block-diagonal. Both are exact.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.concept.exchange.adapter_names import ALPHA, field_of
from understudy.errors import ConceptError

PART = "transformer."
PREFIXES = ("diffusion_model.", "model.diffusion_model.", PART, "")
Shapes = Mapping[str, tuple[int, ...]]
Pair = tuple[Tensor, Tensor, float]  # A (rank, in), B (out, rank), alpha

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
}
_SINGLE = {
    "{}linear1": "{}attn.to_q {}attn.to_k {}attn.to_v {}proj_mlp|{}attn.to_qkv_mlp_proj",
    "{}linear2": "{}proj_out|{}attn.to_out",
    "{}modulation.lin": "{}norm.linear",
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
}
_ALIKE = {
    "{}attention.qkv": "{}attention.to_q {}attention.to_k {}attention.to_v",
    "{}attention.out": "{}attention.to_out.0",
}
_EMBEDDERS = "time_text_embed.{}_embedder.linear_{}"
_FLUX_TOP = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    **{
        f"{theirs}.{layer}_layer": _EMBEDDERS.format(ours, number)
        for theirs, ours in (("time_in", "timestep"), ("vector_in", "text"),
                             ("guidance_in", "guidance"))
        for number, layer in ((1, "in"), (2, "out"))
    },
}  # fmt: skip
_SD3_TOP = {
    "context_embedder": "context_embedder",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    **{
        f"{theirs}.mlp.{layer}": _EMBEDDERS.format(ours, number)
        for theirs, ours in (("t_embedder", "timestep"), ("y_embedder", "text"))
        for number, layer in ((1, 0), (2, 2))
    },
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
            ("", "", _FLUX_TOP),
        ]
    elif f"{PART}pos_embed.proj.weight" in weights:
        kinds = [("joint_blocks.", "transformer_blocks.", _JOINT), ("", "", _SD3_TOP)]
    else:
        lists = ("layers.", "noise_refiner.", "context_refiner.")
        kinds = [(one, one, _ALIKE) for one in lists]
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
        return True
    outputs, inputs = weights[full[0]][0], weights[full[0]][-1]
    return path.startswith("{}context_block.adaLN") and outputs == 2 * inputs


def as_ours(tensors: Mapping[str, Tensor], weights: Shapes, file: str) -> dict[str, Tensor]:
    """The tensors of a file under diffusers' names, fused layers split. Others stay as they are.

    Raises ConceptError for a fused layer in another form than a plain LoRA.
    """
    table = original_table(weights)
    flat = {f"lora_unet_{path.replace('.', '_')}": path for path in table}
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        placed = field_of(name)
        module = placed[0] if placed else ALPHA.sub("", name)
        path = flat.get(module)
        for prefix in PREFIXES:
            if path is None and module.startswith(prefix) and module[len(prefix) :] in table:
                path = module[len(prefix) :]
        if path is None:
            found[_renamed(name)] = value
            continue
        ending, layer = name[len(module) :], table[path]
        plain = placed is None or placed[1] in ("A", "B")
        if not plain and (len(layer.weights) > 1 or layer.swapped):
            raise ConceptError(
                f"{file}: {name!r} belongs to a fused layer, and only plain LoRA matrices of such "
                "layers are read. Merge it into a model with the program that made it."
            )
        pieces = [value] * len(layer.weights)
        if placed is not None and placed[1] == "B":
            pieces = _cut(value, layer, weights, name, file)
        for weight, piece in zip(layer.weights, pieces, strict=True):
            found[f"{weight.removesuffix('.weight')}{ending}"] = piece
    return found


def _renamed(name: str) -> str:
    """ "diffusion_model." in front of diffusers' names, as ai-toolkit and ComfyUI write them."""
    for prefix in PREFIXES[:2]:
        if name.startswith(prefix):
            return PART + name[len(prefix) :]
    return name


def _cut(value: Tensor, layer: Fused, weights: Shapes, name: str, file: str) -> list[Tensor]:
    rows = [weights[weight][0] for weight in layer.weights]
    if not value.ndim or sum(rows) != len(value):
        raise ConceptError(
            f"{file} is for another model: {name!r} has {len(value) if value.ndim else 0} rows. "
            f"Expected {sum(rows)}."
        )
    value = _halves(value) if layer.swapped else value
    return [piece.contiguous() for piece in value.split(rows)]


def _halves(value: Tensor) -> Tensor:
    first, second = value.chunk(2)
    return torch.cat([second, first])


def as_original(pairs: Mapping[str, Pair], weights: Shapes) -> dict[str, Pair]:
    """Low-rank changes by the original code's paths; what it does not name stays by ours.

    A layer whose parts did not all change gets zero rows for the others.
    """
    owner = {
        weight: (path, layer)
        for path, layer in original_table(weights).items()
        for weight in layer.weights
    }
    found: dict[str, Pair] = {}
    for weight, pair in pairs.items():
        if weight not in owner:
            found[weight] = pair
            continue
        path, layer = owner[weight]
        if path not in found:
            found[path] = _joined([pairs.get(one) for one in layer.weights], layer, weights)
    return found


def _joined(parts: list[Pair | None], layer: Fused, weights: Shapes) -> Pair:
    there = [part for part in parts if part is not None]
    if len(parts) == 1 and not layer.swapped:
        return there[0]
    a = torch.cat([part[0].float() for part in there])
    b = a.new_zeros(sum(weights[one][0] for one in layer.weights), len(a))
    row = column = 0
    for weight, part in zip(layer.weights, parts, strict=True):
        height = weights[weight][0]
        if part is not None:
            rank = len(part[0])
            b[row : row + height, column : column + rank] = part[1].float() * (part[2] / rank)
            column += rank
        row += height
    return a, (_halves(b) if layer.swapped else b), float(len(a))
