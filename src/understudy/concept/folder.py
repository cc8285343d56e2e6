"""A concept on disk: a folder of two files.

`concept.json` says what it is and names the weights file by its content, so a new version replaces
an old one in a single rename: a reader finds the old concept or the new one, never a mixture. This
module does not know what the tensors mean.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy.errors import ConceptError, OutputError, sentence
from understudy.files import spec
from understudy.files.atomic import replacing, unwritable
from understudy.files.reading import read_json
from understudy.files.tensors import headers, load_tensors, write_tensors

FORMAT = 1
MANIFEST = "concept.json"
# All that learning writes beside the photos' owner: the concept, its run, previews and log.
OURS = (MANIFEST, "weights-*.safetensors", "checkpoints", "previews", "learn.jsonl", "learn.png",
        ".run.*", ".*.partial")  # fmt: skip
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_WEIGHTS = re.compile(r"weights-[0-9a-f]{16}\.safetensors")
_RECORD = spec.Record(
    {},
    {"tail_scale": spec.Number(-100, 100), "left_out": spec.Items(spec.Text())},
    others=spec.Data(),
)
DECLARED = spec.Record(
    {
        "format": spec.Number(FORMAT, FORMAT, whole=True),
        "name": spec.Text(400, pattern=_NAME.pattern),
        "identifier": spec.Text(400),
        "class_noun": spec.Text(400),
        "kind": spec.Text(400),
        "base_model": spec.Text(4096),
        "base_fingerprint": spec.Text(400),
        "weights": spec.Text(400, pattern=_WEIGHTS.pattern),
        "sha256": spec.Text(64),
        "record": _RECORD,
    },
    {"also": spec.Table(spec.Text(), _NAME.pattern, most=1_000)},
)
# What the names mean: see `concept.value`.
TENSORS = (
    spec.Tensors("tail", "_ _"),
    spec.Tensors(r"(.+)\.lora_A", ".rank _"),
    spec.Tensors(r"(.+)\.lora_B", "_ .rank"),
    spec.Tensors(r".+\.alpha", ""),
    spec.Tensors(r"(.+)\.rows", ".n _"),
    spec.Tensors(r"(.+)\.ids", ".n", ("int64",)),
    spec.Tensors(r"[a-z0-9_]+\..+", "..."),
)
_TEXTS = ("name", "identifier", "class_noun", "kind", "base_model", "base_fingerprint")


def write(folder: Path, fields: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write fields and tensors into `folder`, over what was there, and return the folder.

    Raises OutputError where the folder cannot be written; what was there before stays whole.
    """
    kept = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    digest = digest_of(kept)
    weights = folder / f"weights-{digest[:16]}.safetensors"
    was_there, had_weights = folder.exists(), weights.exists()
    try:
        with replacing(weights) as staged:
            write_tensors(staged, kept)
        with replacing(folder / MANIFEST) as staged:
            staged.write_text(_manifest(fields, weights.name, digest), encoding="utf-8")
    except OutputError:
        if not had_weights and folder.is_dir():
            weights.unlink(missing_ok=True)
        if not was_there and folder.is_dir():
            folder.rmdir()
        raise
    for old in folder.glob("weights-*.safetensors"):
        if old != weights and _WEIGHTS.fullmatch(old.name):
            old.unlink(missing_ok=True)
    return folder


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The reverse of `write`: fields and tensors. Raises ConceptError naming the bad file."""
    manifest = read_manifest(folder)
    weights = folder / manifest["weights"]
    if not weights.exists():
        raise ConceptError(f"{weights} is missing, so the concept cannot be loaded.")
    try:
        spec.check_headers(headers(weights)[0], TENSORS)
        tensors, _ = load_tensors(weights)
        spec.check_finite(tensors)
    except OSError as error:
        raise ConceptError(f"{weights} is damaged or unreadable: {sentence(error)}") from error
    except spec.Unfit as problem:
        raise ConceptError(f"{weights} is not a concept file: {problem}.") from None
    if digest_of(tensors) != manifest["sha256"]:
        raise ConceptError(f"{weights} is damaged: its checksum does not match.")
    fields = {key: manifest[key] for key in _TEXTS}
    return {**fields, "record": manifest["record"], "also": manifest["also"]}, tensors


def remove(folder: Path) -> int:
    """Remove what learning wrote into a concept's folder, and the folder when nothing else is in
    it; how many files of others are left. Raises OutputError."""
    try:
        for pattern in OURS:  # concept.json first: without it, it is no concept any more
            for entry in folder.glob(pattern):
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink(missing_ok=True)
        left = sum(1 for entry in folder.rglob("*") if not entry.is_dir())
        if not left:
            shutil.rmtree(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    return left


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and contents, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _manifest(fields: Mapping[str, Any], weights: str, digest: str) -> str:
    whole = {"format": FORMAT, **{key: fields[key] for key in _TEXTS}}
    whole |= {"weights": weights, "sha256": digest}
    whole |= {"also": dict(fields["also"]), "record": dict(fields["record"])}
    return json.dumps(whole, indent=2) + "\n"


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `concept.json` says, checked; no weights are read. Raises ConceptError."""
    path = folder / MANIFEST
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConceptError(f"{path.parent} is not a concept: it has no {MANIFEST}.") from error
    except (OSError, ValueError):
        pass  # the reader says why
    manifest: Any = read_json(path, error=ConceptError)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ConceptError(f"{path} has an unsupported format; expected {FORMAT}.")
    try:
        DECLARED.check(manifest, "it")
    except spec.Unfit as problem:
        raise ConceptError(f"{path} is damaged: {problem}.") from None
    return {"also": {}, **manifest}
