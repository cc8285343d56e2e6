"""What a LoRA or embedding file says of itself in its header: our note, and kohya's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from understudy.concept import Concept
from understudy.concept.exchange import embedding
from understudy.concept.exchange.lora import Shapes
from understudy.errors import InputError
from understudy.files.reading import parse_json
from understudy.models.interface import DiffusionModel, denoiser_part

OURS = "understudy"  # key of our note


def header(
    model: DiffusionModel,
    concept: Concept,
    format: str,
    tensors: Mapping[str, Tensor],
    shapes: Shapes,
) -> dict[str, str]:
    """Notes in a file's header: ours, and for kohya's readers theirs."""
    said = {key: getattr(concept, key) for key in ("name", "identifier", "class_noun", "kind")}
    notes = {OURS: json.dumps(said, ensure_ascii=False), "format": "pt"}
    if format != "kohya":
        return notes
    base = _kohya_base(model, shapes)
    ranks = {len(one) for name, one in tensors.items() if name.endswith("lora_down.weight")}
    alphas = {float(one) for name, one in tensors.items() if name.endswith(".alpha")}
    return notes | {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(max(ranks)) if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": str(max(alphas)) if len(alphas) == 1 else "Dynamic",
        "ss_base_model_version": base,
        "ss_output_name": concept.name,
    }


def _kohya_base(model: DiffusionModel, shapes: Shapes) -> str:
    """What kohya's trainers call the kind of base model."""
    if denoiser_part(model) == "transformer":
        kind = type(model.trainable_modules()["transformer"]).__name__
        known = {"SD3Transformer2DModel": "sd3", "FluxTransformer2DModel": "flux1"}
        return known.get(kind, kind.removesuffix("Transformer2DModel").lower())
    tables = embedding.tables(shapes)
    width = shapes[tables["text_encoder"]][1]
    return "sdxl_base_v1-0" if len(tables) == 2 else "sd_v2" if width == 1024 else "sd_v1"


def told_in(notes: Mapping[str, str]) -> dict[str, Any]:
    """What a file of ours says of itself; nothing for another program's."""
    try:
        told = parse_json(notes.get(OURS, "{}"), OURS)
    except InputError:
        return {}
    return {k: v for k, v in told.items() if isinstance(v, str)} if isinstance(told, dict) else {}
