"""Reads LoRA files and their relatives. Every tensor and every header entry that sets the scale is
accounted for: used, listed as left out, or refused by name.

A plain LoRA stays two small matrices. Every other kind (adapter_kinds.py) becomes a full difference
of the weights it changes, float32, or float16 for very large files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from understudy.concept.exchange.adapter_kinds import decomposed, full, low_rank, rank_of
from understudy.concept.exchange.adapter_names import (
    ALPHA,
    AdapterModule,
    is_lora,
    layout_of,
    modules_of,
)
from understudy.concept.exchange.adapter_scale import Scales, scales_of
from understudy.concept.exchange.lora import LowRank
from understudy.concept.exchange.names import diffusers_weight, kohya_table
from understudy.concept.exchange.original_names import as_ours
from understudy.errors import ConceptError

__all__ = ["LoraFile", "is_lora", "read_lora"]

BUNDLED = "bundle_emb."
MOST = 1e30  # of a change's values
LARGE = 2**28  # numbers in full differences; above it they are kept as float16


@dataclass(frozen=True)
class LoraFile:
    """What a file changes: pairs of low rank, full differences by weight. left_out: one line for
    each kind of entry that is not used."""

    pairs: LowRank
    differences: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    left_out: tuple[str, ...] = ()


def read_lora(
    content: Mapping[str, Any],
    notes: Mapping[str, str],
    weights: Mapping[str, Tensor],
    file: str,
    *,
    scales: Scales | None = None,
    part: str | None = None,
) -> LoraFile:
    """The changes in a file of kohya's, LyCORIS', diffusers' or PEFT's layout.

    notes: the file's header. weights: every weight of the model (DoRA needs their values). scales:
    what a PEFT folder's settings say, instead of the header. part: the network that the names
    without one belong to, where it is known. Raises ConceptError for other kinds of adapter,
    another family's LoRA, an entry that belongs to nothing, and values that are not finite.
    """
    tensors, left_out = _tensors_of(content)
    tensors = as_ours(tensors, {n: tuple(one.shape) for n, one in weights.items()}, file)
    found_scales = scales_of(notes, file)
    left_out += found_scales.left_out
    scales = scales or found_scales
    modules = modules_of(tensors, file)
    if "ss_network_alpha" in notes and any(one.alpha is None for one in modules.values()):
        left_out.append("the header entry 'ss_network_alpha' (trainers write it as a tensor too)")
    table = kohya_table(weights)
    read = LoraFile({}, {}, tuple(left_out))
    strangers: list[str] = []
    for name, module in modules.items():
        weight = table.get(name) or diffusers_weight(name, weights, part)
        if weight is None:
            strangers.append(name)
            continue
        found = {kind: tensors[own] for kind, own in module.names.items()}
        _take(read, weight, module, found, weights, scales, file)
    if strangers or not (read.pairs or read.differences):
        raise ConceptError(_not_this_model(strangers, file))
    if sum(one.numel() for one in read.differences.values()) > LARGE:
        halved = {name: one.half() for name, one in read.differences.items()}
        return LoraFile(read.pairs, halved, read.left_out)
    return read


def _tensors_of(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors that belong to the adapter, and a line for what does not."""
    tensors: dict[str, Tensor] = {}
    bundled: set[str] = set()
    others: list[str] = []
    for name, value in content.items():
        if name.startswith(BUNDLED):
            bundled.add(name.removeprefix(BUNDLED).split(".")[0])
        elif isinstance(value, (int, float)) and ALPHA.search(name):
            tensors[name] = torch.tensor(float(value))
        elif isinstance(value, Tensor):
            tensors[name] = value
        elif name != "state_dict":  # its content is read as if it stood beside it
            others.append(name)
    lines: list[str] = []
    if bundled:
        words = ", ".join(map(repr, sorted(bundled)))
        lines.append(f"the embedding bundled with the LoRA for {words}")
    if others:
        lines.append(
            f"{len(others)} entries that are no tensors: {', '.join(map(repr, others))[:200]}"
        )
    return tensors, lines


def _take(
    read: LoraFile,
    weight: str,
    module: AdapterModule,
    found: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    scales: Scales,
    file: str,
) -> None:
    """Add what one module changes to `read`."""
    name = next(iter(module.names.values()))
    shape = tuple(weights[weight].shape)
    rank = rank_of(found)
    if rank == 0:
        raise _misfit(module, found, shape, file)
    if not found.keys() <= {"diff", "bias"}:
        scale = scales.scale(weight, rank, module.alpha, file)
    elif module.alpha is None:
        scale = 1.0
    else:
        raise ConceptError(f"{file}: {name!r} is a full difference, to which no alpha belongs.")
    _check_dora(found, scales, weight, name, file)
    if found.keys() <= {"A", "B", "scaled bias"}:
        if (pair := low_rank(found, shape)) is None:
            raise _misfit(module, found, shape, file)
        _once(read, weight, name, file)
        largest = float(pair[0].abs().max()) * float(pair[1].abs().max()) * len(pair[0])
        _check_size(largest * abs(scale), name, file)
        read.pairs[weight] = (*pair, scale * len(pair[0]))
    elif found.keys() - {"bias", "scaled bias"}:
        change = full(found, shape)
        change = None if change is None else scale * change
        for kind in found.keys() & {"dora", "magnitude"}:
            if change is not None:
                change = _dora(found[kind], kind, weights[weight], change)
        if change is None:
            raise _misfit(module, found, shape, file)
        _once(read, weight, name, file)
        _check_size(float(change.abs().max()), name, file)
        read.differences[weight] = change.contiguous()
    for kind, factor in (("bias", 1.0), ("scaled bias", scale)):
        if kind in found:
            _take_bias(read, weight, factor * found[kind].float(), weights, module, kind, file)


def _take_bias(
    read: LoraFile,
    weight: str,
    change: Tensor,
    weights: Mapping[str, Tensor],
    module: AdapterModule,
    kind: str,
    file: str,
) -> None:
    bias = weight.removesuffix("weight") + "bias"
    if bias not in weights or change.numel() != weights[bias].numel():
        raise ConceptError(
            f"{file} is for another model: {module.names[kind]!r} is of shape "
            f"{tuple(change.shape)}, and this model has no such bias."
        )
    _once(read, bias, module.names[kind], file)
    _check_size(float(change.abs().max()), module.names[kind], file)
    read.differences[bias] = change.reshape(weights[bias].shape).contiguous()


def _dora(magnitude: Tensor, kind: str, weight: Tensor, change: Tensor) -> Tensor | None:
    """PEFT has a magnitude for each output; LyCORIS' shape says for which dimension it is."""
    shape = tuple(magnitude.shape)
    outputs = kind == "magnitude" or (len(shape) > 1 and shape[0] == weight.shape[0])
    one_side = sum(size > 1 for size in shape) <= 1
    if kind == "dora" and (not one_side or len(shape) != weight.ndim):
        return None
    return decomposed(weight, change, magnitude, outputs)


def _check_dora(
    found: Mapping[str, Tensor], scales: Scales, weight: str, name: str, file: str
) -> None:
    if scales.of(weight).get("use_dora") and not found.keys() & {"dora", "magnitude"}:
        raise ConceptError(
            f"{file}: the settings say use_dora, and {name!r} has no magnitudes beside it. Save "
            "the file again with the program that made it."
        )
    if {"dora", "magnitude"} <= found.keys():
        raise ConceptError(f"{file}: {name!r} has magnitudes twice.")


def _check_size(largest: float, name: str, file: str) -> None:
    """Raise ConceptError where finite factors make a change that is not, or is absurd."""
    if not largest < MOST:
        raise ConceptError(
            f"{file}: the change of which {name!r} is a part has values up to {largest:.1e}. "
            "The file is damaged."
        )


def _once(read: LoraFile, weight: str, name: str, file: str) -> None:
    if weight in read.pairs or weight in read.differences:
        raise ConceptError(f"{file} changes the weight {weight} twice: see {name!r}.")


def _misfit(
    module: AdapterModule, found: Mapping[str, Tensor], shape: tuple[int, ...], file: str
) -> ConceptError:
    """Shapes that do not make the weight's."""
    shown = " and ".join(
        f"{module.names[kind]} is {tuple(one.shape)}" for kind, one in list(found.items())[:3]
    )
    return ConceptError(
        f"{file} is a LoRA for another model: {shown}, the weight it changes here is {shape}. "
        "Load the model it was made for."
    )


def _not_this_model(strangers: Iterable[str], file: str) -> str:
    """The message for a LoRA whose modules the model lacks: it names the layout that was seen."""
    listed = list(strangers)
    if not listed:
        return f"{file} changes no weights. Expected a LoRA or an embedding file."
    return (
        f"{file} changes {len(listed)} weights that this model does not have, the first is "
        f"{listed[0]!r}. The layout is {layout_of(listed)}. Load the model it was made for."
    )
