"""A single checkpoint file of a flow transformer -> a diffusers folder, tensor by tensor.

Such a file holds the transformer under its authors' names, alone (Black Forest Labs) or with the
autoencoder and text encoders beside it (Stability AI, ComfyUI). Parts that the file lacks come from
folders beside it or from the hub. Every tensor is used, named as left out, or refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from understudy.errors import ModelError
from understudy.files.atomic import write_json
from understudy.models.family import Z_IMAGE
from understudy.models.transformer.load import class_of, empty_network
from understudy.models.transformer.original_names import PART, original_table
from understudy.models.transformer.shards import Piece, write_shards
from understudy.models.transformer.single_file_parts import (
    AUTOENCODERS,
    UNREAD,
    Conversion,
    FindPart,
    index_of,
    write_autoencoder,
    write_encoder,
    write_scheduler,
)
from understudy.models.transformer.single_file_shapes import Layout, layout_of, transformer_config
from understudy.models.weight_files import Entry, header

SCALED = ("scaled_fp8", "scale_weight", "weight_scale", "scale_input", "comfy_quant", "absmax")
TYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I32")


def flow_layout(file: Path) -> Layout | None:
    """Which flow model a file holds; None for other files and for damaged ones."""
    if file.suffix.lower() != ".safetensors":
        return None
    try:
        return layout_of(header(file))
    except ModelError:  # whoever reads the tensors says what is wrong
        return None


def write_flow_folder(file: Path, folder: Path, layout: Layout, find_part: FindPart) -> str:
    """Write the folder, model_index.json last; returns a line on tensors that are left out, or "".

    Raises ModelError for tensors that no part has, for quantised ones, and for parts that can be
    had neither from the file nor beside it nor from the hub.
    """
    work = Conversion(file, folder, layout, header(file), find_part)
    _refuse_scaled(work)
    used = {f"{layout.prefix}{name}" for name in _write_transformer(work)}
    used |= write_autoencoder(work)
    encoders: dict[str, bool] = {}
    for part in layout.family.encoders:
        taken = write_encoder(work, part)
        encoders[part] = taken is not None
        used |= taken or set()
    write_scheduler(work)
    write_json(folder / "model_index.json", index_of(work, encoders))
    return _left_out(work, used)


def _refuse_scaled(work: Conversion) -> None:
    for name in work.entries:
        if name.split(".")[-1] in SCALED or name.endswith(".quant_map"):
            raise ModelError(
                f"{work.file} is quantised with scales ({name[:90]!r}). Get the bfloat16 file of "
                "this model; --dtype int8 or nf4 quantises it while loading."
            )
    odd = {one.dtype for one in work.entries.values()} - set(TYPES)
    if odd:
        raise ModelError(f"{work.file} holds tensors of type {min(odd)}. Get the bfloat16 file.")


def _write_transformer(work: Conversion) -> set[str]:
    """Write transformer/; returns the names that it used, without their prefix."""
    prefix, family = work.layout.prefix, work.layout.family
    others = (*AUTOENCODERS, "text_encoders.") if not prefix else ()
    found = {n: e for n, e in work.below(prefix).items() if not n.startswith(others or ("\0",))}
    try:
        config = transformer_config(family, found)
    except KeyError as error:
        raise ModelError(f"{work.file} is incomplete: it has no {error.args[0]}.") from error
    network = empty_network(class_of(family, "transformer"), config)
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    pieces = _pieces(wanted, found, work)
    used = {piece.name.removeprefix(prefix) for piece in pieces.values()}
    if family is Z_IMAGE:
        used |= found.keys() & {
            "norm_final.weight"
        }  # of Lumina's network; Z-Image has no such norm
    if left := sorted(found.keys() - used):
        raise ModelError(
            f"{work.file} holds {len(left)} tensors that no transformer of {family.name} has, the "
            f"first is {left[0][:90]!r}. It is of another kind of model."
        )
    write_json(work.folder / "transformer" / "config.json", config)
    write_shards(work.folder / "transformer", work.file, pieces)
    return used


def _pieces(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, Entry], work: Conversion
) -> dict[str, Piece]:
    """For each tensor of diffusers' network: where it is in the file.

    Raises ModelError for one that is missing or of another shape.
    """
    prefix, file = work.layout.prefix, work.file
    pieces: dict[str, Piece] = {}
    for path, layer in original_table({f"{PART}{k}": v for k, v in wanted.items()}).items():
        for ending in ("weight", "bias"):
            ours = [w.removeprefix(PART).removesuffix("weight") + ending for w in layer.weights]
            if ours[0] not in wanted:
                continue
            name = f"{path}.{ending}"
            if name not in found and ending == "weight":
                name = f"{path}.scale"  # of Black Forest Labs' norms
            rows = [wanted[one][0] for one in ours]
            first = 0
            for one, count in zip(ours, rows, strict=True):
                span = (first, first + count) if len(ours) > 1 else None
                pieces[one] = Piece(f"{prefix}{name}", span, layer.swapped)
                first += count
            whole = (sum(rows), *wanted[ours[0]][1:])
            if name in found and found[name].shape != whole:
                raise ModelError(
                    f"{file}: {prefix}{name} has the shape {found[name].shape}. Wanted {whole}."
                )
    plain = {"pos_embed.pos_embed": "pos_embed"}
    for one in wanted.keys() - pieces.keys():
        name = plain.get(one, one)
        if name not in found and name.endswith(".weight"):
            name = f"{name.removesuffix('weight')}scale"
        pieces[one] = Piece(f"{prefix}{name}")
    missing = sorted({p.name for p in pieces.values()} - {f"{prefix}{name}" for name in found})
    if missing:
        raise ModelError(f"{file} is incomplete: it has no {missing[0]}.")
    return pieces


def _left_out(work: Conversion, used: set[str]) -> str:
    counts: dict[str, int] = {}
    for name in work.entries.keys() - used:
        if not name.endswith(UNREAD):
            first = name.split(".")[0][:60]
            counts[first] = counts.get(first, 0) + 1
    if not counts:
        return ""
    shown = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
    return f"{work.file.name} holds tensors of no part of its model, which are left out: {shown}."
