"""A concept to the files of other programs, and such files to a concept.

    folder      a whole diffusers model that has the subject in it
    lora        diffusers' and PEFT's LoRA file
    kohya       the LoRA file of kohya's trainers, for A1111, Forge, ComfyUI and InvokeAI
    comfyui     a LoRA file of a flow model with its authors' names, for ComfyUI
    embedding   a Textual Inversion file, for all of these

The model that a concept was learnt on is needed both ways: it knows what its weights are called.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy.concept import Concept, applied, named_parameters
from understudy.concept.exchange import embedding, lora
from understudy.concept.exchange.lora_file import is_lora, read_lora
from understudy.concept.exchange.peft_folder import is_peft_folder, lora_in, read_peft_folder
from understudy.errors import ConceptError, InputError
from understudy.files.reading import parse_json
from understudy.files.tensors import save_tensors
from understudy.models.interface import DiffusionModel, denoiser_part
from understudy.models.registry import load
from understudy.models.transformer.model import FlowTransformer
from understudy.models.unet.stable_diffusion import StableDiffusion
from understudy.untrusted.checkpoint_file import read_file

FORMATS = ("folder", "lora", "kohya", "comfyui", "embedding")
LORAS = ("lora", "kohya", "comfyui")
OURS = "understudy"  # key of our note in a file's header
RANK = 32


@dataclass(frozen=True)
class Exported:
    """What was written; kept: the share of the change (sum of squares) that a LoRA of this rank
    holds, 1 where nothing was left out."""

    path: Path
    format: str
    kept: float = 1.0


def export_concept(
    model: DiffusionModel,
    concept: Concept,
    path: Path,
    format: str,
    *,
    rank: int = RANK,
    dtype: torch.dtype = torch.float16,
) -> Exported:
    """Write a concept as other programs read it; `model` is the one it was learnt on.

    Full changes become a LoRA by singular values, at `rank`. Raises InputError for an unknown
    format, ConceptError for what a format cannot hold.
    """
    if format not in FORMATS:
        raise InputError(f"--to must be one of {', '.join(FORMATS)}. Got {format!r}.")
    shapes = shapes_of(model)
    _refuse_what_is_lost(concept, format)
    if format == "comfyui" and denoiser_part(model) == "unet":
        raise InputError(f"--to comfyui is for flow models; {model.name!r} has a U-Net. Use kohya.")
    if format == "folder":
        from understudy.models.write_folder import write_folder

        if not isinstance(model, (StableDiffusion, FlowTransformer)):
            raise ConceptError(f"{model.name!r} is not a diffusers model: --to folder needs one.")
        with applied(model, concept):
            return Exported(write_folder(model, path, dtype=dtype), format)
    if path.suffix != ".safetensors":
        raise InputError(f"--out must end in .safetensors for {format}. Got {path.name!r}.")
    kept = 1.0
    if format == "embedding":
        tensors = embedding.to_file(concept.tensors)
    else:
        pairs, kept = lora.as_low_rank(concept.tensors, rank, shapes)
        write = {"kohya": lora.to_kohya, "comfyui": lora.to_comfyui}
        tensors = write.get(format, lora.to_diffusers)(pairs, shapes)
    whole = {name: tensor.to("cpu", dtype) for name, tensor in tensors.items()}
    save_tensors(path, whole, _header(model, concept, format, tensors))
    return Exported(path, format, kept)


def import_concept(
    model: DiffusionModel,
    source: Path,
    *,
    name: str | None = None,
    class_noun: str | None = None,
    identifier: str | None = None,
    words: tuple[str, ...] = (),
) -> Concept:
    """A concept out of another program's file, or a fine-tuned diffusers folder, for `model`.

    name, class_noun, identifier: what prompts are to say; a file of ours says it itself. words:
    rare words to put an embedding's rows on, one a row. record["left_out"] of the concept lists
    what of the file is not used, one line a kind. Raises ConceptError for what does not fit.
    """
    file = source if source.is_file() else lora_in(source)
    content, notes = read_file(file) if file else ({}, {})
    told = _told(notes)
    word = identifier or told.get("identifier") or ""
    tensors, kind, read = {}, "lora", None
    if file and not is_lora(content) and embedding.is_embedding(content):
        kind = "textual-inversion"
        rows = embedding.rows_of(content, str(source))
        word = " ".join(_fitting(rows, word, words))
        ids = [model.vocabulary[string] for string in model.tokenize(word).strings]
        tensors = embedding.as_tensors(rows, ids, shapes_of(model), str(source))
    elif file:
        read = read_lora(content, notes, named_parameters(model), str(file))
    elif is_peft_folder(source):
        read = read_peft_folder(source, named_parameters(model))
    else:
        tensors, kind = _difference(model, source), "dreambooth"
    left_out = read.left_out if read else ()
    if read:
        tensors = {**lora.as_tensors(read.pairs), **read.differences}
    if kind != "textual-inversion" and not word:
        raise InputError(
            f"{source} does not record its trigger word. Give the word that it was trained with: "
            "--identifier WORD."
        )
    return Concept(
        name=name or told.get("name") or source.stem,
        identifier=word,
        class_noun=class_noun or told.get("class_noun") or "",
        kind=told.get("kind", kind) if kind == "lora" else kind,
        base_model=model.name,
        base_fingerprint=model.base_fingerprint,
        tensors=tensors,
        record={
            "imported": source.name,
            **({"notes": dict(notes)} if notes else {}),
            **({"left_out": list(left_out)} if left_out else {}),
        },
    )


def shapes_of(model: DiffusionModel) -> dict[str, tuple[int, ...]]:
    """The shape of every trainable weight, by its name."""
    return {name: tuple(weight.shape) for name, weight in named_parameters(model).items()}


def rows_wanted(source: Path) -> int:
    """How many rare words an embedding file needs, one a row; 0 for anything else."""
    if source.is_dir():
        return 0
    content, _ = read_file(source)
    if is_lora(content) or not embedding.is_embedding(content):
        return 0
    return len(next(iter(embedding.rows_of(content, str(source)).values())))


def _fitting(rows: Mapping[str, Tensor], word: str, words: tuple[str, ...]) -> list[str]:
    """As many words as there are rows: the identifier's own if they suffice, else those offered."""
    count = len(next(iter(rows.values())))
    for found in (word.split(), list(words)):
        if len(found) == count:
            return found
    raise InputError(
        f"The embedding has {count} rows, so it needs {count} words of one token each. Got "
        f"{len(word.split())} by --identifier and {len(words)} rare ones."
    )


def _difference(model: DiffusionModel, folder: Path) -> dict[str, Tensor]:
    """What a fine-tuned folder's weights are more than the model's, float16."""
    tuned = named_parameters(load(str(folder), device="cpu"))
    base = named_parameters(model)
    if {k: v.shape for k, v in tuned.items()} != {k: v.shape for k, v in base.items()}:
        raise ConceptError(f"{folder} and {model.name!r} are models of different families.")
    found: dict[str, Tensor] = {}
    for name, weight in tuned.items():
        change = weight.detach() - base[name].detach().to("cpu", weight.dtype)
        if change.any():
            found[name] = change.half()
    return found


def _refuse_what_is_lost(concept: Concept, format: str) -> None:
    """A format must hold all that a concept consists of, or say what it cannot."""
    names = list(concept.tensors)
    has_rows = any(name.endswith(".rows") for name in names)
    others = [n for n in names if n != "tail" and not n.endswith((".rows", ".ids"))]
    if "tail" in names:
        raise ConceptError(
            f"{concept.name!r} was learnt with HiPer: its embeddings follow those of a prompt, "
            "which no other file format supports. To export it, learn it with another --method."
        )
    if format == "embedding" and (others or not has_rows):
        raise ConceptError(
            f"{concept.name!r} was learnt by {concept.kind} and changes the networks' weights, "
            "which an embedding file cannot store. Use --to kohya, lora or folder."
        )
    if format in LORAS and not others:
        raise ConceptError(
            f"{concept.name!r} is an embedding, which a LoRA file cannot store. Use --to embedding."
        )
    if format in LORAS and has_rows:
        raise ConceptError(
            f"{concept.name!r} has learnt words in addition to its LoRA. Use --to folder."
        )


def _header(
    model: DiffusionModel, concept: Concept, format: str, tensors: Mapping[str, Tensor]
) -> dict[str, str]:
    """Notes in a file's header: ours, and for kohya's readers theirs."""
    said = {key: getattr(concept, key) for key in ("name", "identifier", "class_noun", "kind")}
    notes = {OURS: json.dumps(said, ensure_ascii=False), "format": "pt"}
    if format != "kohya":
        return notes
    base = _kohya_base(model)
    ranks = {len(one) for name, one in tensors.items() if name.endswith("lora_down.weight")}
    alphas = {float(one) for name, one in tensors.items() if name.endswith(".alpha")}
    return notes | {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(max(ranks)) if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": str(max(alphas)) if len(alphas) == 1 else "Dynamic",
        "ss_base_model_version": base,
        "ss_output_name": concept.name,
    }


def _kohya_base(model: DiffusionModel) -> str:
    """What kohya's trainers call the kind of base model."""
    if denoiser_part(model) == "transformer":
        kind = type(model.trainable_modules()["transformer"]).__name__
        known = {"SD3Transformer2DModel": "sd3", "FluxTransformer2DModel": "flux1"}
        return known.get(kind, kind.removesuffix("Transformer2DModel").lower())
    tables = embedding.tables(shapes_of(model))
    width = shapes_of(model)[tables["text_encoder"]][1]
    return "sdxl_base_v1-0" if len(tables) == 2 else "sd_v2" if width == 1024 else "sd_v1"


def _told(notes: Mapping[str, str]) -> dict[str, Any]:
    """What a file of ours says of itself; nothing for another program's."""
    try:
        told = parse_json(notes.get(OURS, "{}"), OURS)
    except InputError:
        return {}
    return {k: v for k, v in told.items() if isinstance(v, str)} if isinstance(told, dict) else {}
