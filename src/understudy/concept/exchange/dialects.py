"""A LoRA as the tensors of a file, in the dialect of each program that reads it.

    program                          layers are called                 in front
    diffusers, PEFT                  as in diffusers                   the part
    kohya                            as its authors call them          lora_unet_, lora_te1_, ...
    ComfyUI                          as its authors call them          diffusion_model.
    Black Forest Labs                as its authors call them          nothing
    ai-toolkit, FLUX.1 and SD 3      as in diffusers                   transformer.
    ai-toolkit, Qwen-Image, Z-Image  as in diffusers                   diffusion_model.
    ai-toolkit, FLUX.2 and Chroma    as its authors call them          diffusion_model.

kohya writes alpha beside the matrices; in the others the scale alpha / rank is multiplied in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from understudy.concept.exchange.lora import LowRank, Shapes
from understudy.concept.exchange.names import as_text_model, kohya_name, split_weight
from understudy.concept.exchange.original_names import as_original, original_table
from understudy.errors import ConceptError, InputError

OF_FLOWS = ("comfyui", "ai-toolkit", "bfl")
TRANSFORMER, INSIDE = "transformer.", "diffusion_model."


def check_family(format: str, model: str, shapes: Shapes) -> None:
    """Raise InputError for a dialect in which nobody reads LoRAs of this model."""
    if not any(name.startswith(TRANSFORMER) for name in shapes):
        raise InputError(f"--to {format} is for flow models; {model!r} has a U-Net. Use kohya.")
    if format == "bfl" and not _is_flux(shapes):
        raise InputError(
            f"--to bfl is for FLUX models; {model!r} is of another family. Use comfyui."
        )


def to_kohya(pairs: LowRank, shapes: Shapes) -> dict[str, Tensor]:
    """Tensors under kohya's names: lora_down, lora_up and alpha of each module."""
    found: dict[str, Tensor] = {}
    for weight, (a, b, alpha) in as_original(pairs, shapes).items():
        ours = weight in shapes
        name = kohya_name(weight, shapes) if ours else f"lora_unet_{weight.replace('.', '_')}"
        down, up = in_shape(a, b, shapes[weight] if ours else ())
        found |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        found[f"{name}.alpha"] = torch.tensor(alpha, dtype=down.dtype)
    return found


def to_diffusers(pairs: LowRank, shapes: Shapes) -> dict[str, Tensor]:
    """Tensors under diffusers' names, the scale alpha / rank multiplied into the second one.

    Text encoders keep the prefix "text_model." that older versions look for.
    """
    found: dict[str, Tensor] = {}
    for weight, (a, b, alpha) in pairs.items():
        part, path = split_weight(weight)
        name = f"{part}.{as_text_model(part, path)}"
        down, up = in_shape(a, b * (alpha / len(a)), shapes[weight])
        found |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    return found


def to_comfyui(pairs: LowRank, shapes: Shapes) -> dict[str, Tensor]:
    """Tensors of a flow transformer under its authors' names (Black Forest Labs', Stability's),
    "diffusion_model." in front, as ComfyUI writes them; diffusers' names where the family has no
    others."""
    return _as_authors(pairs, shapes, INSIDE)


def to_bfl(pairs: LowRank, shapes: Shapes) -> dict[str, Tensor]:
    """Tensors of a FLUX transformer under its authors' names, as in their own LoRA files.

    Raises ConceptError for a concept that changes a text encoder.
    """
    others = sorted({split_weight(name)[0] for name in pairs} - {TRANSFORMER[:-1]})
    if others:
        raise ConceptError(
            f"--to bfl writes the transformer alone, and the concept changes {others[0]}, too. Use "
            "--to comfyui or kohya."
        )
    return _as_authors(pairs, shapes, "")


def to_ai_toolkit(pairs: LowRank, shapes: Shapes) -> dict[str, Tensor]:
    """Tensors as ai-toolkit names them, which depends on the family."""
    if _is_flux(shapes) and not _is_flux1(shapes):
        return _as_authors(pairs, shapes, INSIDE)
    found = to_diffusers(pairs, shapes)
    if _is_flux1(shapes) or f"{TRANSFORMER}pos_embed.proj.weight" in shapes:
        return found
    inside = {name: name.startswith(TRANSFORMER) for name in found}
    return {
        INSIDE + name.removeprefix(TRANSFORMER) if inside[name] else name: value
        for name, value in found.items()
    }


def _is_flux(shapes: Shapes) -> bool:
    """FLUX.1, FLUX.2 and Chroma, whose blocks Black Forest Labs named."""
    return any(path.startswith("double_blocks.") for path in original_table(shapes))


def _is_flux1(shapes: Shapes) -> bool:
    return _is_flux(shapes) and any("time_text_embed." in name for name in shapes)


def _as_authors(pairs: LowRank, shapes: Shapes, before: str) -> dict[str, Tensor]:
    """Tensors by the authors' names; before: in front of those of the transformer."""
    found: dict[str, Tensor] = {}
    for weight, (a, b, alpha) in as_original(pairs, shapes).items():
        part, path = split_weight(weight) if weight in shapes else ("transformer", weight)
        name = f"{before}{path}"
        if part != "transformer":
            name = f"{part}.{as_text_model(part, path)}"
        down, up = in_shape(a, b * (alpha / len(a)), shapes.get(weight, ()))
        found |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    return found


def in_shape(a: Tensor, b: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The pair of a convolution as two convolutions, that of a linear layer as it is."""
    if len(shape) == 4:
        return a.reshape(len(a), *shape[1:]).contiguous(), b[:, :, None, None].contiguous()
    return a.contiguous(), b.contiguous()
