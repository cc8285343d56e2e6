"""Textual Inversion files: a few rows for the text encoders' tables of words.

Dialects: A1111's .pt and .safetensors ("string_to_param", "emb_params"), one tensor for each table
(XL's "clip_l" and "clip_g", ComfyUI's "t5xxl" besides, "t5" of diffusers' FLUX trainer), and
diffusers' {word: rows}. Pivotal tuning has such rows beside a LoRA: in the same file ("bundle_emb"
of kohya's world) or in a file beside it (diffusers' "_emb.safetensors"). Ours keeps rows by the
token they stand for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy.errors import ConceptError

TABLE, T5_TABLE = "token_embedding.weight", "shared.weight"
CLIPS, T5 = ("clip_l", "clip_g"), "t5xxl"
# Other programs' names of the tables: those of diffusers' pivotal tuning.
LABELS = {
    **{label: label for label in (*CLIPS, T5)},
    **{"text_encoders_0": "clip_l", "text_encoders_1": "clip_g", "t5": T5},
}
ONE = "emb_params"
ONLY = "clip_l"  # a file that does not say which table it is for
BUNDLED, BESIDE = "bundle_emb.", "_emb.safetensors"
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def tables(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """The name of each text encoder's table of words, by its part."""
    ends = (TABLE, T5_TABLE)
    found = {name.split(".")[0]: name for name in shapes if name.endswith(ends)}
    return {part: found[part] for part in sorted(found) if part.startswith("text_encoder")}


def labels(named: Mapping[str, str]) -> dict[str, str]:
    """What files call these tables (part -> name), by part."""
    clips = [part for part, name in named.items() if name.endswith(TABLE)]
    return {part: CLIPS[clips.index(part)] if part in clips else T5 for part in named}


def to_file(tensors: Mapping[str, Tensor], *, t5: str = T5) -> dict[str, Tensor]:
    """The rows of a concept under the names that A1111, ComfyUI and diffusers read.

    t5: what T5's rows are called.
    """
    rows = {name: one for name, one in tensors.items() if name.endswith(".rows")}
    named = tables({name.removesuffix(".rows"): () for name in rows})
    found = {
        label: rows[f"{named[part]}.rows"].contiguous() for part, label in labels(named).items()
    }
    if set(found) == {ONLY}:
        return {ONE: found[ONLY]}
    return {t5 if label == T5 else label: one for label, one in found.items()}


def to_bundle(tensors: Mapping[str, Tensor], word: str) -> dict[str, Tensor]:
    """The same as part of a LoRA file."""
    names = {ONE: "string_to_param.*"}
    found = to_file(tensors)
    return {f"{BUNDLED}{word}.{names.get(name, name)}": one for name, one in found.items()}


def bundled(content: Mapping[str, Any]) -> dict[str, Any]:
    """The embedding that a LoRA file has beside the LoRA, as an embedding file's content; empty
    where there is none or more than one."""
    parts = {name: name.removeprefix(BUNDLED) for name in content if name.startswith(BUNDLED)}
    if len({part.partition(".")[0] for part in parts.values()}) != 1:
        return {}
    inner = {part.partition(".")[2]: content[name] for name, part in parts.items()}
    plain = {name.removeprefix("string_to_param."): one for name, one in inner.items()}
    return {ONE: plain["*"]} if set(plain) == {"*"} else plain


def beside(source: Path) -> Path | None:
    """The file of embeddings beside a LoRA file, None without one."""
    found = source.with_name(source.stem + BESIDE)
    return found if source.is_file() and found.is_file() else None


def is_embedding(content: Mapping[str, Any]) -> bool:
    """Whether a file's content is a Textual Inversion."""
    if "string_to_param" in content or ONE in content or _labelled(content):
        return True
    return len(content) == 1 and all(
        isinstance(one, Tensor) and one.ndim <= 2 for one in content.values()
    )


def _labelled(content: Mapping[str, Any]) -> dict[str, str]:
    """The tables that a file names, by its own names."""
    return {name: LABELS[name] for name in content if name in LABELS}


def rows_of(content: Mapping[str, Any], file: str) -> dict[str, Tensor]:
    """The rows (n, width) that a file gives each table, by its label; "" = it does not say.

    Raises ConceptError for several embeddings, tensors that belong to none, and values that are
    not finite.
    """
    if named := _labelled(content):
        if len(set(named.values())) < len(named):
            raise ConceptError(f"{file} names a text encoder twice: {sorted(named)}.")
        found = {label: content[name] for name, label in named.items()}
        others = set(content) - set(named)
    else:
        inner = content.get("string_to_param", content)
        names = [key for key, one in inner.items() if isinstance(one, Tensor)]
        if len(names) != 1:
            raise ConceptError(f"{file} holds {len(names)} embeddings. Expected one.")
        found = {"": inner[names[0]]}
        others = set(inner) - set(names) if inner is not content else set[str]()
        others |= {k for k in content if isinstance(content[k], Tensor) and inner is not content}
    if others:
        raise ConceptError(
            f"{file} is an embedding and holds {sorted(map(str, others))[0]!r} too, which belongs "
            "to no embedding of this model. Save the embedding alone."
        )
    for label, one in found.items():
        of = f"the rows for {label}" if label else "the rows"
        plain = isinstance(one, Tensor) and one.dtype in FLOATS
        if not plain or not 1 <= one.ndim <= 2 or not one.numel():
            raise ConceptError(f"{file}: {of} are not a floating-point tensor.")
        if not one.detach().float().isfinite().all():
            raise ConceptError(f"{file}: {of} hold values that are not finite.")
    return {label: one.detach().reshape(-1, one.shape[-1]) for label, one in found.items()}


def by_part(
    rows: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], file: str
) -> dict[str, Tensor]:
    """The rows by the part of the model whose table they belong to.

    A file may leave out the rows of T5, not those of a CLIP. Raises ConceptError for other tables.
    """
    named = tables(shapes)
    parts = {label: part for part, label in labels(named).items()}
    given = {label or (ONLY if ONLY in parts else T5): one for label, one in rows.items()}
    if not set(parts) - {T5} <= set(given) <= set(parts):
        many = ("no text encoder", "one text encoder", "two text encoders", "three text encoders")
        raise ConceptError(
            f"{file} is an embedding for a model with {many[len(given)]}, this one has "
            f"{many[len(parts)]} whose words can be replaced ({', '.join(given)}; "
            f"{', '.join(parts) or '-'}). Load a model of the family it was made for."
        )
    return {parts[label]: one for label, one in given.items()}


def as_tensors(
    rows: Mapping[str, Tensor],
    ids: Mapping[str, Sequence[int]],
    shapes: Mapping[str, tuple[int, ...]],
    file: str,
) -> dict[str, Tensor]:
    """A concept's tensors: each row in the place of one of the tokens. ids: of each part's table.

    Raises ConceptError for rows that do not fit the model's tables.
    """
    named, found = tables(shapes), dict[str, Tensor]()
    for part, value in by_part(rows, shapes, file).items():
        width = shapes[named[part]][1]
        if len(value) != len(ids[part]):
            raise ConceptError(
                f"{file} has {len(value)} rows for the {part} and {len(ids[part])} for another. "
                "Expected as many for each text encoder."
            )
        if value.shape[1] != width:
            raise ConceptError(
                f"{file} is an embedding of width {value.shape[1]}, this model's words have "
                f"{width}. Load a model of the family it was made for."
            )
        found[f"{named[part]}.rows"] = value.float().contiguous()
        found[f"{named[part]}.ids"] = torch.tensor(list(ids[part]))
    return found
