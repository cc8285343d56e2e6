"""Textual Inversion files: a few rows for the text encoder's table of words.

Three dialects: A1111's .pt and .safetensors ("string_to_param", "emb_params"), XL's pair of tables
("clip_l", "clip_g"), and diffusers' {word: rows}. Ours keeps rows by the token they stand for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from understudy.errors import ConceptError

TABLE = "token_embedding.weight"
PAIR = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
# Other names of the pair: those of diffusers' pivotal tuning.
PAIRS = (PAIR, {"text_encoder": "text_encoders_0", "text_encoder_2": "text_encoders_1"})
ONE = "emb_params"
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def tables(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """The name of each text encoder's table of words, by its part."""
    return {name.split(".")[0]: name for name in shapes if name.endswith(TABLE)}


def to_file(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The rows of a concept under the names that A1111, ComfyUI and diffusers read."""
    rows = {
        name.split(".")[0]: tensor for name, tensor in tensors.items() if name.endswith(".rows")
    }
    if set(rows) == {"text_encoder"}:
        return {ONE: rows["text_encoder"].contiguous()}
    return {PAIR[part]: tensor.contiguous() for part, tensor in rows.items()}


def is_embedding(content: Mapping[str, Any]) -> bool:
    """Whether a file's content is a Textual Inversion."""
    if "string_to_param" in content or ONE in content or _pair_in(content):
        return True
    return len(content) == 1 and all(
        isinstance(one, Tensor) and one.ndim <= 2 for one in content.values()
    )


def _pair_in(content: Mapping[str, Any]) -> dict[str, str] | None:
    """The names of XL's two tables in a file, by part."""
    return next((pair for pair in PAIRS if set(pair.values()) <= set(content)), None)


def rows_of(content: Mapping[str, Any], file: str) -> dict[str, Tensor]:
    """The rows (n, width) that a file gives each text encoder.

    Raises ConceptError for several embeddings, tensors that belong to none, and values that are
    not finite.
    """
    if pair := _pair_in(content):
        found = {part: content[name] for part, name in pair.items()}
        others = set(content) - set(pair.values())
    else:
        inner = content.get("string_to_param", content)
        names = [key for key, one in inner.items() if isinstance(one, Tensor)]
        if len(names) != 1:
            raise ConceptError(f"{file} holds {len(names)} embeddings. Expected one.")
        found = {"text_encoder": inner[names[0]]}
        others = set(inner) - set(names) if inner is not content else set[str]()
        others |= {k for k in content if isinstance(content[k], Tensor) and inner is not content}
    if others:
        raise ConceptError(
            f"{file} is an embedding and holds {sorted(map(str, others))[0]!r} too, which belongs "
            "to no embedding of this model. Save the embedding alone."
        )
    for part, one in found.items():
        plain = isinstance(one, Tensor) and one.dtype in FLOATS
        if not plain or not 1 <= one.ndim <= 2 or not one.numel():
            raise ConceptError(f"{file}: the rows for {part} are not a floating-point tensor.")
        if not one.detach().float().isfinite().all():
            raise ConceptError(f"{file}: the rows for {part} hold values that are not finite.")
    return {part: one.detach().reshape(-1, one.shape[-1]) for part, one in found.items()}


def as_tensors(
    rows: Mapping[str, Tensor],
    ids: Sequence[int],
    shapes: Mapping[str, tuple[int, ...]],
    file: str,
) -> dict[str, Tensor]:
    """A concept's tensors: each row in the place of one of the tokens `ids`."""
    named = tables(shapes)
    if set(rows) != set(named):
        count = {1: "one text encoder", 2: "two text encoders"}
        raise ConceptError(
            f"{file} is an embedding for a model with {count[len(rows)]}, this one has "
            f"{count[len(named)]}. Load a model of the family it was made for."
        )
    found: dict[str, Tensor] = {}
    for part, value in rows.items():
        width = shapes[named[part]][1]
        if len(value) != len(ids):
            raise ConceptError(
                f"{file} has {len(value)} rows for {part} and {len(ids)} for another. Expected as "
                "many for each text encoder."
            )
        if value.shape[1] != width:
            raise ConceptError(
                f"{file} is an embedding of width {value.shape[1]}, this model's words have "
                f"{width}. Load a model of the family it was made for."
            )
        found[f"{named[part]}.rows"] = value.float().contiguous()
        found[f"{named[part]}.ids"] = torch.tensor(list(ids))
    return found
