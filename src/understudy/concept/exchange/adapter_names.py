"""The names of an adapter's tensors in every dialect: which module, and which part of its change.

Ends of names are known; what stands before one is the module's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from understudy.errors import ConceptError

# The matrices A and B in the dialects of kohya, PEFT, and diffusers since 2023.
HALF = re.compile(
    r"(?P<ending>\.lora_(?P<kohya>down|up)\.weight"
    r"|\.lora_(?P<peft>A|B)(\.(?P<adapter>[^.]+))?\.weight"
    r"|\.lora(_linear_layer)?\.(?P<old>down|up)\.weight"
    r"|\.(?P<plain>down|up)\.weight)$"
)
ALPHA = re.compile(r"(\.lora|\.lora_linear_layer)?\.alpha$")
# Endings of all else: the field, "{}" in it the captured text, by what the name ends in.
FIELDS = (
    (re.compile(r"\.(hada_(?:w[12]_[ab]|t[12]))(\.(?P<adapter>[^.]+))?$"), "{}"),
    (re.compile(r"\.(lokr_(?:w[12](?:_[ab])?|t2))(\.(?P<adapter>[^.]+))?$"), "{}"),
    (re.compile(r"\.(lora_mid)\.weight$"), "mid"),
    (re.compile(r"\.(dora_scale)$"), "dora"),
    (re.compile(r"\.(lora_magnitude_vector)(\.(?P<adapter>[^.]+?))??(\.weight)?$"), "magnitude"),
    (re.compile(r"\.(diff)$"), "diff"),
    (re.compile(r"\.(diff_b)$"), "bias"),
    (re.compile(r"\.(w_norm)$"), "diff"),
    (re.compile(r"\.(b_norm)$"), "bias"),
    (re.compile(r"\.(lora_B)(\.(?P<adapter>[^.]+))?\.bias$"), "scaled bias"),
)
# What marks an adapter that is not read, and its name.
OTHERS = (
    (re.compile(r"\.oft_|\.oft_blocks|\.boft_"), "OFT"),
    (re.compile(r"\.lora_embedding_[AB]"), "LoRA of an embedding table"),
    (re.compile(r"\.modules_to_save\."), "PEFT modules_to_save"),
    (re.compile(r"\.a[12]\.weight$|\.b[12]\.weight$"), "GLoRA"),
    (re.compile(r"\.vera_lambda|\.ia3_l$|\.ln_tuning"), "another kind of adapter"),
)
WHOLE = (  # what a module may consist of, "dora", "magnitude" and biases aside
    {"A", "B"}, {"A", "B", "mid"}, {"diff"}, set[str](),
    {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"},
    {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"},
    *({*one, *two} for one in ({"lokr_w1"}, {"lokr_w1_a", "lokr_w1_b"})
      for two in ({"lokr_w2"}, {"lokr_w2_a", "lokr_w2_b"}, {"lokr_w2_a", "lokr_w2_b", "lokr_t2"})),
)  # fmt: skip
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
BESIDE = {"dora", "magnitude", "bias", "scaled bias"}


@dataclass
class AdapterModule:
    """The names of one module's tensors by their field ("A", "hada_w1_a"), and its alpha if any."""

    names: dict[str, str] = field(default_factory=dict[str, str])
    alpha: float | None = None


def is_lora(names: Iterable[str]) -> bool:
    """Whether a file's names are those of a LoRA or of another adapter."""
    return any(field_of(name) or kind_of(name) or ALPHA.search(name) for name in names)


def kind_of(name: str) -> str | None:
    """The kind of an adapter that is not read, by a tensor's name; None for all that are."""
    return next((kind for mark, kind in OTHERS if mark.search(name)), None)


def field_of(name: str) -> tuple[str, str, str | None] | None:
    """A tensor's module, its field, and the name of the adapter if it has one."""
    if half := HALF.search(name):
        which = next(half[k] for k in ("kohya", "peft", "old", "plain") if half[k])
        return name[: half.start()], "A" if which in ("A", "down") else "B", half["adapter"]
    for pattern, kind in FIELDS:
        if found := pattern.search(name):
            adapter = found.groupdict().get("adapter")
            return name[: found.start()], kind.format(found[1]), adapter
    return None


def modules_of(tensors: Mapping[str, Tensor], file: str) -> dict[str, AdapterModule]:
    """Every tensor sorted to its module. Raises ConceptError, naming it, for one without a place
    and for a module that is not whole."""
    odd = [(name, kind) for name in sorted(tensors) if (kind := kind_of(name))]
    if odd:
        name, kind = odd[0]
        raise ConceptError(
            f"{file} is not a supported adapter: it has {name!r} ({kind}). Merge it into "
            "a model with the program that made it, and import that folder."
        )
    found: dict[str, AdapterModule] = {}
    adapters: set[str] = set()
    for name in tensors:
        placed = field_of(name)
        if placed is None:
            continue
        module, which, adapter = placed
        adapters |= {adapter} if adapter else set()
        names = found.setdefault(module, AdapterModule()).names
        if which in names:
            raise ConceptError(f"{file} has {name!r} twice, also as {names[which]!r}.")
        names[which] = name
    if tensors and not found:
        raise ConceptError(
            f"{file} holds {len(tensors)} tensors and none of them is a LoRA matrix; the first is "
            f"{min(tensors)!r}. Save the file again with the program that made it."
        )
    _check_adapters(adapters, file)
    for name, value in tensors.items():
        check_values(name, value, file)
        if field_of(name):
            continue
        module = ALPHA.sub("", name) if ALPHA.search(name) else None
        if module not in found:
            raise ConceptError(
                f"{file} holds {name!r}, which belongs to no pair of LoRA matrices. "
                "Save the file again with the program that made it."
            )
        found[module].alpha = _alpha(name, value, file)
    for module in found.values():
        _check_whole(module, file)
    return found


def _check_whole(module: AdapterModule, file: str) -> None:
    fields = module.names.keys() - BESIDE
    if fields not in WHOLE or (not fields and "bias" not in module.names):
        name = next(iter(module.names.values()))
        raise ConceptError(f"{file} holds {name!r} without its other half. Save the file again.")


def _check_adapters(adapters: set[str], file: str) -> None:
    if len(adapters) > 1:
        named = ", ".join(map(repr, sorted(adapters)))[:100]
        raise ConceptError(
            f"{file} holds {len(adapters)} adapters: {named}. Expected one. Save each in a file of "
            "its own."
        )


def check_values(name: str, value: Tensor, file: str) -> None:
    """Raise ConceptError unless a tensor is of floating point and finite."""
    if value.dtype not in FLOATS and not ALPHA.search(name):
        raise ConceptError(
            f"{file}: {name!r} is of type {value.dtype}. Expected floating point of 16 to 64 bits."
        )
    if not value.float().isfinite().all():
        raise ConceptError(f"{file}: {name!r} holds values that are not finite (NaN, infinity).")


def _alpha(name: str, value: Tensor, file: str) -> float:
    """A module's own alpha. Zero is refused: kohya's program reads it as the rank, others as 0."""
    if value.numel() != 1 or float(value) == 0:
        raise ConceptError(f"{file}: {name!r} must be one number other than 0.")
    return float(value)


def layout_of(names: Iterable[str]) -> str:
    """What layout a file's module names have, in words."""
    known = (
        (r"double_blocks|single_blocks|single_transformer_blocks", "that of a Flux LoRA"),
        (r"joint_blocks|^transformer\.|^lora_transformer", "that of a LoRA for a transformer"),
        (r"^lora_prior_", "that of a LoRA for Stable Cascade or Wuerstchen"),
        (r"^lora_te3_|^text_encoder_3\.", "that of a LoRA for Stable Diffusion 3 or Flux"),
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
