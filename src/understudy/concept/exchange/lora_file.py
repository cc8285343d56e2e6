"""Reads LoRA files. Every tensor and every header entry that sets the scale is accounted for:
used, listed as left out, or refused by name.

The weight change of a module is (alpha / rank) * B @ A (Hu et al. 2021, section 4.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from understudy.concept.exchange.adapter_scale import Scales, scales_of
from understudy.concept.exchange.lora import LowRank, Shapes
from understudy.concept.exchange.names import diffusers_weight, kohya_table
from understudy.errors import ConceptError

# Endings of the matrices A and B in every dialect; what stands before is the module's name.
HALF = re.compile(
    r"(?P<ending>\.lora_(?P<kohya>down|up)\.weight"
    r"|\.lora_(?P<peft>A|B)(\.(?P<adapter>[^.]+))?\.weight"
    r"|\.lora(_linear_layer)?\.(?P<old>down|up)\.weight"
    r"|\.(?P<plain>down|up)\.weight)$"
)
ALPHA = re.compile(r"(\.lora|\.lora_linear_layer)?\.alpha$")
# What marks an adapter that is not a plain LoRA, and its name.
OTHERS = (
    (re.compile(r"\.hada_"), "LoHa"),
    (re.compile(r"\.lokr_"), "LoKr"),
    (re.compile(r"\.oft_|\.oft_blocks|\.boft_"), "OFT"),
    (re.compile(r"\.dora_scale$|\.lora_magnitude_vector"), "DoRA"),
    (re.compile(r"\.lora_mid\.weight$"), "LoCon with a Tucker core"),
    (re.compile(r"\.diff$|\.diff_b$"), "full differences"),
    (re.compile(r"\.w_norm$|\.b_norm$"), "trained normalisation layers"),
    (re.compile(r"\.lora_[AB](\.[^.]+)?\.bias$|\.lora_bias"), "LoRA with bias"),
    (re.compile(r"\.lora_embedding_[AB]"), "LoRA of an embedding table"),
    (re.compile(r"\.modules_to_save\."), "PEFT modules_to_save"),
    (re.compile(r"\.a[12]\.weight$|\.b[12]\.weight$"), "GLoRA"),
)
BUNDLED = "bundle_emb."


@dataclass(frozen=True)
class LoraFile:
    """pairs: what the file changes. left_out: one line for each kind of entry that is not used."""

    pairs: LowRank
    left_out: tuple[str, ...] = ()


@dataclass
class _Halves:
    """A and B of one module, the names they have in the file, and its own alpha if any."""

    names: dict[str, str] = field(default_factory=dict[str, str])
    alpha: float | None = None


def is_lora(names: Iterable[str]) -> bool:
    """Whether a file's names are those of a LoRA or of another adapter."""
    return any(HALF.search(name) or kind_of(name) for name in names)


def kind_of(name: str) -> str | None:
    """The kind of adapter that a tensor's name belongs to, None for a plain LoRA's."""
    return next((kind for mark, kind in OTHERS if mark.search(name)), None)


def read_lora(
    content: Mapping[str, Any], notes: Mapping[str, str], shapes: Shapes, file: str
) -> LoraFile:
    """The low-rank changes in a file of kohya's, diffusers' or PEFT's layout.

    notes: the file's header. shapes: the shape of every weight of the model. Raises ConceptError
    for other kinds of adapter, another family's LoRA, an entry that belongs to nothing, and values
    that are not finite.
    """
    tensors, left_out = _tensors_of(content)
    scales = scales_of(notes, file)
    left_out += scales.left_out
    modules = _modules(tensors, file)
    if "ss_network_alpha" in notes and any(one.alpha is None for one in modules.values()):
        left_out.append("the header entry 'ss_network_alpha' (trainers write it as a tensor too)")
    table = kohya_table(shapes)
    pairs: LowRank = {}
    strangers: list[str] = []
    for module, found in modules.items():
        weight = table.get(module) or diffusers_weight(module, shapes)
        if weight is None:
            strangers.append(module)
            continue
        if weight in pairs:
            raise ConceptError(f"{file} changes the weight {weight} twice: see {module!r}.")
        pairs[weight] = _pair(found, tensors, weight, shapes[weight], scales, file)
    if strangers or not pairs:
        raise ConceptError(_not_this_model(strangers, file))
    return LoraFile(pairs, tuple(left_out))


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


def _modules(tensors: Mapping[str, Tensor], file: str) -> dict[str, _Halves]:
    """Every tensor sorted to its module. Raises ConceptError for one that has no place."""
    odd = [(name, kind) for name in sorted(tensors) if (kind := kind_of(name))]
    if odd:
        name, kind = odd[0]
        raise ConceptError(
            f"{file} is no plain LoRA: it has {name!r} ({kind}), which is not read. Merge it into "
            "a model with the program that made it, and import that folder."
        )
    found: dict[str, _Halves] = {}
    adapters: set[str] = set()
    for name in tensors:
        half = HALF.search(name)
        if half is None:
            continue
        which = next(half[k] for k in ("kohya", "peft", "old", "plain") if half[k])
        adapters |= {half["adapter"]} if half["adapter"] else set()
        names = found.setdefault(name[: half.start()], _Halves()).names
        side = "A" if which in ("A", "down") else "B"
        if side in names:
            raise ConceptError(f"{file} holds {names[side]!r} and {name!r}, which are the same.")
        names[side] = name
    if len(adapters) > 1:
        named = ", ".join(map(repr, sorted(adapters)))[:100]
        raise ConceptError(
            f"{file} holds {len(adapters)} adapters: {named}. Wanted one. Save each as a file of "
            "its own."
        )
    for name, value in tensors.items():
        _check_values(name, value, file)
        if HALF.search(name):
            continue
        module = ALPHA.sub("", name) if ALPHA.search(name) else None
        if module not in found:
            raise ConceptError(
                f"{file} holds {name!r}, which belongs to no pair of LoRA matrices. "
                "Save the file again with the program that made it."
            )
        found[module].alpha = _alpha(name, value, file)
    for halves in found.values():
        if len(halves.names) < 2:
            (name,) = halves.names.values()
            raise ConceptError(
                f"{file} holds {name!r} without its other half. Save the file again."
            )
    return found


def _check_values(name: str, value: Tensor, file: str) -> None:
    if not value.is_floating_point() and not ALPHA.search(name):
        raise ConceptError(f"{file}: {name!r} is of type {value.dtype}. Wanted floating point.")
    if not value.float().isfinite().all():
        raise ConceptError(f"{file}: {name!r} holds values that are not finite (NaN, infinity).")


def _alpha(name: str, value: Tensor, file: str) -> float:
    """A module's own alpha. Zero is refused: kohya's program reads it as the rank, others as 0."""
    if value.numel() != 1 or float(value) == 0:
        raise ConceptError(f"{file}: {name!r} must be one number other than 0.")
    return float(value)


def _pair(
    found: _Halves,
    tensors: Mapping[str, Tensor],
    weight: str,
    shape: tuple[int, ...],
    scales: Scales,
    file: str,
) -> tuple[Tensor, Tensor, float]:
    """A (rank, in), B (out, rank) and alpha for a weight of this shape."""
    down, up = tensors[found.names["A"]], tensors[found.names["B"]]
    inputs = torch.Size(shape[1:]).numel()
    if min(len(shape), down.ndim, up.ndim) > 1 and len(down) > 0:
        a, b = down.flatten(1), up.flatten(1)
        if (tuple(b.shape), a.shape[1]) == ((*shape[:1], len(a)), inputs):
            return a, b, scales.alpha(weight, len(a), found.alpha, file)
    raise ConceptError(
        f"{file} is a LoRA for another model: {found.names['A']} is {tuple(down.shape)} and "
        f"{found.names['B']} is {tuple(up.shape)}, the weight it changes here is {shape}. Load "
        "the model it was made for."
    )


def _not_this_model(strangers: list[str], file: str) -> str:
    """The message for a LoRA whose modules the model lacks: it names the layout that was seen."""
    if not strangers:
        return f"{file} changes no weights. Wanted a LoRA or an embedding file."
    return (
        f"{file} changes {len(strangers)} weights that this model does not have, the first is "
        f"{strangers[0]!r}. The layout is {layout_of(strangers)}. Load the model it was made for."
    )


def layout_of(names: Iterable[str]) -> str:
    """What layout a file's module names have, in words."""
    known = (
        (r"double_blocks|single_blocks|single_transformer_blocks", "that of a Flux LoRA"),
        (r"joint_blocks|^transformer\.|^lora_transformer", "that of a LoRA for a transformer"),
        (r"^lora_te2_|^lora_unet_(input|output|middle)_block", "kohya's for Stable Diffusion XL"),
        (r"^text_encoder_2\.", "diffusers' for Stable Diffusion XL"),
        (r"^lora_(unet|te|te1)_", "kohya's (lora_unet_..., lora_te_...)"),
        (r"^base_model\.model\.", "PEFT's (base_model.model...)"),
        (r"^(unet|text_encoder)\.", "diffusers' (unet...., text_encoder....)"),
        (r"^(down_blocks|up_blocks|mid_block|text_model|encoder)\.", "diffusers' without a part"),
    )
    listed = list(names)
    for pattern, layout in known:
        if any(re.search(pattern, name) for name in listed):
            return layout
    return "not known: neither kohya's, diffusers' nor PEFT's"
