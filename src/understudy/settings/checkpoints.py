"""Which flow model a single checkpoint file holds, by the names in its header. Free of torch.

The names are those of the authors' code; models/transformer/single_file_shapes.py reads the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from understudy.files.reading import first_bytes, parse_json

MAX_HEADER = 32 * 2**20  # bytes of the header of a checkpoint file
PREFIXES = ("model.diffusion_model.", "diffusion_model.", "")
# Of each family's transformer a name that no other has; the first that is there decides.
MARKS = {
    "joint_blocks.0.x_block.attn.qkv.weight": "StableDiffusion3",
    "double_stream_modulation_img.lin.weight": "Flux2",
    "distilled_guidance_layer.in_proj.weight": "Chroma",
    "double_blocks.0.img_attn.qkv.weight": "Flux",
    "transformer_blocks.0.img_mod.1.weight": "QwenImage",
    "noise_refiner.0.adaLN_modulation.0.weight": "ZImage",
}
GUIDED = "guidance_in.in_layer.weight"  # FLUX.1 dev has it, schnell has not


def flow_mark(names: Iterable[str]) -> tuple[str, str] | None:
    """What is in front of the transformer's names, and its family; None for other files."""
    there = set(names)
    for prefix in PREFIXES:
        for mark, family in MARKS.items():
            if f"{prefix}{mark}" in there:
                return prefix, family
    return None


def flow_family_of_file(file: Path) -> str | None:
    """The flow family of a checkpoint file; None for other files and for damaged ones."""
    found = flow_mark(names_in(file))
    return None if found is None else found[1]


def is_schnell(file: Path) -> bool:
    """Whether a file holds a FLUX.1 without a guidance input, which is schnell."""
    names = names_in(file)
    found = flow_mark(names)
    return found is not None and found[1] == "Flux" and f"{found[0]}{GUIDED}" not in names


def names_in(file: Path) -> frozenset[str]:
    """The names of the tensors in a .safetensors file; none where it cannot be read."""
    if file.suffix.lower() != ".safetensors":
        return frozenset()
    try:
        length = int.from_bytes(first_bytes(file, 8), "little")
        told = first_bytes(file, 8 + length)[8:] if length <= MAX_HEADER else b""
        names: Any = parse_json(told, str(file), most=MAX_HEADER)
    except Exception:  # loading the model says what is wrong with it
        return frozenset()
    return frozenset(cast("dict[str, Any]", names)) if isinstance(names, dict) else frozenset()
