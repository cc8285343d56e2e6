"""A concept to the files of other programs, and such files to a concept.

    folder      a whole diffusers model that has the subject in it
    lora        diffusers' LoRA file
    peft        PEFT's folder: adapter_config.json and adapter_model.safetensors
    kohya       the LoRA file of kohya's trainers, for A1111, Forge, ComfyUI and InvokeAI
    comfyui     a LoRA file of a flow model with its authors' names, for ComfyUI
    ai-toolkit  a LoRA file of a flow model as ai-toolkit writes it
    bfl         a LoRA file of a FLUX model as Black Forest Labs' own code names its layers
    embedding   a Textual Inversion file, for all of these

The model that a concept was learnt on is needed both ways: it knows what its weights are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy.concept import Concept, applied, named_parameters
from understudy.concept.exchange import dialects, embedding, lora
from understudy.concept.exchange.lora import LowRank, Shapes
from understudy.concept.exchange.lora_file import LoraFile, is_lora, read_lora
from understudy.concept.exchange.notes import header, told_in
from understudy.concept.exchange.peft_folder import (
    is_peft_folder,
    lora_in,
    read_peft_folder,
    write_peft_folder,
)
from understudy.errors import ConceptError, InputError
from understudy.files.tensors import save_tensors
from understudy.models.interface import DiffusionModel
from understudy.models.registry import load
from understudy.models.transformer.model import FlowTransformer
from understudy.models.unet.stable_diffusion import StableDiffusion
from understudy.models.word_tables import word_tables
from understudy.untrusted.checkpoint_file import read_file

# What writes a LoRA in each dialect.
LORAS: Mapping[str, Callable[[LowRank, Shapes], dict[str, Tensor]]] = {
    "lora": dialects.to_diffusers,
    "peft": dialects.to_diffusers,
    "kohya": dialects.to_kohya,
    "comfyui": dialects.to_comfyui,
    "ai-toolkit": dialects.to_ai_toolkit,
    "bfl": dialects.to_bfl,
}
FORMATS = ("folder", *LORAS, "embedding")
RANK = 32
ROWS = (".rows", ".ids")


@dataclass(frozen=True)
class Exported:
    """What was written; kept: the share of the change (sum of squares) that a LoRA of this rank
    holds, 1 where nothing was left out. words: the file of learnt words beside it."""

    path: Path
    format: str
    kept: float = 1.0
    words: Path | None = None


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
    if format in dialects.OF_FLOWS:
        dialects.check_family(format, model.name, shapes)
    if format == "folder":
        from understudy.models.write_folder import write_folder

        if not isinstance(model, (StableDiffusion, FlowTransformer)):
            raise ConceptError(f"{model.name!r} is not a diffusers model: --to folder needs one.")
        with applied(model, concept):
            return Exported(write_folder(model, path, dtype=dtype), format)
    if path.suffix != ".safetensors" and format != "peft":
        raise InputError(f"--out must end in .safetensors for {format}. Got {path.name!r}.")
    kept, words = 1.0, {n: t for n, t in concept.tensors.items() if n.endswith(ROWS)}
    beside: dict[str, Tensor] = {}
    if format == "embedding":
        tensors = embedding.to_file(words)
    else:
        change = {name: one for name, one in concept.tensors.items() if name not in words}
        pairs, kept = lora.as_low_rank(change, rank, shapes)
        if format == "peft":
            told = header(model, concept, format, {}, shapes)
            return Exported(write_peft_folder(path, pairs, model, told, dtype), format, kept)
        tensors = LORAS[format](pairs, shapes)
        if words and format == "kohya":
            tensors = {**tensors, **embedding.to_bundle(words, concept.name)}
        elif words:
            t5 = "t5" if format == "lora" else embedding.T5
            beside = embedding.to_file(words, t5=t5)
    notes = header(model, concept, format, tensors, shapes)
    other = path.with_name(path.stem + embedding.BESIDE) if beside else None
    if other is not None:
        save_tensors(other, {n: one.to("cpu", dtype) for n, one in beside.items()}, notes)
    whole = {name: tensor.to("cpu", dtype) for name, tensor in tensors.items()}
    save_tensors(path, whole, notes)
    return Exported(path, format, kept, other)


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
    read: LoraFile | None = None
    if not file and is_peft_folder(source):
        read, notes = read_peft_folder(source, named_parameters(model))
    told = told_in(notes)
    word = identifier or told.get("identifier") or ""
    tensors, kind = {}, "lora"
    learnt: dict[str, Tensor] = {}
    if file and not is_lora(content) and embedding.is_embedding(content):
        kind = "textual-inversion"
        word, tensors = _words(model, content, str(source), word, words)
    elif file:
        if rows := _beside_lora(file, content, word, words):
            kind = "pivotal"
            word, learnt = _words(model, rows, str(source), word, words)
            content = {n: one for n, one in content.items() if not n.startswith(embedding.BUNDLED)}
        read = read_lora(content, notes, named_parameters(model), str(file))
    elif read is None:
        tensors, kind = _difference(model, source), "dreambooth"
    left_out = read.left_out if read else ()
    if read:
        tensors = {**lora.as_tensors(read.pairs), **read.differences, **learnt}
    if kind != "textual-inversion" and not word:
        raise InputError(
            f"{source} does not record its trigger word. Give the word that it was trained with: "
            "--identifier WORD."
        )
    return Concept(
        name=name or told.get("name") or source.stem,
        identifier=word,
        class_noun=class_noun or told.get("class_noun") or "",
        kind=told.get("kind", kind) if kind in ("lora", "pivotal") else kind,
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
    if is_lora(content):
        other = embedding.beside(source)
        content = read_file(other)[0] if other else embedding.bundled(content)
    return _count(content, str(source)) if embedding.is_embedding(content) else 0


def _count(content: Mapping[str, Any], file: str) -> int:
    """How many rows an embedding has."""
    return len(next(iter(embedding.rows_of(content, file).values())))


def _words(
    model: DiffusionModel,
    content: Mapping[str, Any],
    file: str,
    word: str,
    words: tuple[str, ...],
) -> tuple[str, dict[str, Tensor]]:
    """The words that an embedding's rows are put on, and a concept's tensors of these rows."""
    rows = embedding.rows_of(content, file)
    embedding.by_part(rows, shapes_of(model), file)  # before words are asked for
    said = " ".join(_fitting(rows, word, words))
    ids = {part: table.ids(said) for part, table in word_tables(model).items()}
    return said, embedding.as_tensors(rows, ids, shapes_of(model), file)


def _beside_lora(
    file: Path, content: Mapping[str, Any], word: str, words: tuple[str, ...]
) -> Mapping[str, Any]:
    """The embedding that belongs to a LoRA file, in it or beside it; empty where there is none, or
    where there are no words for the one in it."""
    if other := embedding.beside(file):
        return read_file(other)[0]
    found = embedding.bundled(content)
    fits = found and _count(found, str(file)) in (len(word.split()), len(words))
    return found if fits else {}


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
    others = [n for n in names if n != "tail" and not n.endswith(ROWS)]
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
    if format in ("peft", "bfl") and has_rows and others:
        raise ConceptError(
            f"{concept.name!r} has learnt words beside its LoRA, for which --to {format} has no "
            "place. Use --to lora, kohya or comfyui."
        )
    if format in LORAS and not others:
        raise ConceptError(
            f"{concept.name!r} is an embedding, which a LoRA file cannot store. Use --to embedding."
        )
