"""What was learnt, as a value: a name, an identifier, a class noun, and the change of the weights.

A concept is a folder of two files. `concept.json` says what it is and names the weights file by its
content, so a new version replaces an old one in a single rename: a reader finds the old concept or
the new one, never a mixture. The tensors are *differences* from the base model in float16: half
the size of full weights, and they go on a model of any precision.

This module does not know how a concept is learnt, nor what a diffusion model computes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from understudy.errors import ConceptError, InputError, OutputError, PromptError
from understudy.files import replacing
from understudy.models.interface import DiffusionModel

FORMAT = 1
MANIFEST = "concept.json"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_WEIGHTS = re.compile(r"weights-[0-9a-f]{16}\.safetensors")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_TEXTS = ("name", "identifier", "class_noun", "kind", "base_model", "base_fingerprint")


@dataclass(frozen=True, eq=False)
class Concept:
    """A learnt subject: what it is called in prompts, and what it changes in its base model.

    `tensors` maps "module.parameter" (as in "unet.conv_in.weight") to the difference between the
    learnt and the base weights, in the shape of that parameter. `record` says how it was learnt.
    """

    name: str
    identifier: str
    class_noun: str
    kind: str
    base_model: str
    base_fingerprint: str
    tensors: Mapping[str, Tensor] = field(repr=False)
    record: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(
                f"A concept's name is letters, digits, - and _, beginning with a letter, so that "
                f"prompts can say {{rex}}. Got {self.name!r}."
            )

    @property
    def phrase(self) -> str:
        """What stands for the subject in a prompt: "sks cat"."""
        return f"{self.identifier} {self.class_noun}"

    def save(self, folder: Path | str) -> Path:
        """Write the concept into `folder`, replacing any concept there, and return the folder.

        Raises OutputError where the folder cannot be written; what was there before stays whole.
        """
        return _save(self, Path(folder))

    @classmethod
    def load(cls, folder: Path | str) -> Concept:
        """Read a concept from `folder`.

        Raises ConceptError, naming the file, where one is missing, damaged or not ours.
        """
        return _load(Path(folder))


def spelled(prompt: str, *concepts: Concept) -> str:
    """`prompt` with every "{rex}" replaced by the phrase of the concept named rex.

    Raises PromptError for a name that none of the concepts has.
    """
    phrases = {concept.name: concept.phrase for concept in concepts}

    def phrase(match: re.Match[str]) -> str:
        if match[1] in phrases:
            return phrases[match[1]]
        known = ", ".join(f"{{{name}}}" for name in phrases) or "none (no concept was given)"
        raise PromptError(f"The prompt names the concept {match[0]}, but known are: {known}.")

    return _PLACEHOLDER.sub(phrase, prompt)


# Putting on and taking off


@contextmanager
def worn(model: DiffusionModel, *concepts: Concept) -> Generator[None]:
    """Let `model` wear `concepts` inside the block: each adds its change to the weights.

    Afterwards the very same weights are back, bit for bit. May be nested; changes add up.
    Raises ConceptError for a concept made for another base model, before anything is changed.
    """
    for concept in concepts:
        _refuse_misfits(model, concept)
    with untouched(model) as parameters:
        for concept in concepts:
            for name, change in concept.tensors.items():
                _add(parameters[name], change)
        yield


@contextmanager
def untouched(model: DiffusionModel) -> Generator[dict[str, nn.Parameter]]:
    """Lend the model's trainable parameters by name; afterwards they are as they were before.

    Values, precision, gradients, `requires_grad` and train/eval mode are all put back. The lent
    weights are to be *replaced* (`replace_weights`), never changed in place: the originals
    are only set aside, not copied, so that putting back is exact and costs nothing.
    """
    modules = model.trainable_modules()
    parameters = named_parameters(model)
    before = [(p, p.data, p.grad, p.requires_grad) for p in parameters.values()]
    modes = [(m, m.training) for module in modules.values() for m in module.modules()]
    try:
        yield parameters
    finally:
        for parameter, data, grad, needed in before:
            parameter.grad = None  # one of another precision would not go with the data
            parameter.data, parameter.grad = data, grad
            parameter.requires_grad_(needed)
        for module, mode in modes:
            module.training = mode


def named_parameters(model: DiffusionModel) -> dict[str, nn.Parameter]:
    """Every trainable parameter as "module.parameter", such as "unet.conv_in.weight"."""
    return {
        f"{part}.{name}": parameter
        for part, module in model.trainable_modules().items()
        for name, parameter in module.named_parameters()
    }


@torch.no_grad()
def replace_weights(parameter: nn.Parameter, weights: Tensor) -> None:
    """Let `parameter` be a copy of `weights`, its old data left alone.

    The copy is made in place, so that PyTorch's version counter tells who looks that it changed.
    """
    parameter.data = torch.empty_like(weights)
    parameter.copy_(weights)


@torch.no_grad()
def _add(parameter: nn.Parameter, change: Tensor) -> None:
    """Replace the parameter by itself plus `change`, summed in float32 at least."""
    wide = torch.promote_types(parameter.dtype, torch.float32)
    total = parameter.data.to(wide) + change.to(parameter.device, wide)
    replace_weights(parameter, total.to(parameter.dtype))


def _refuse_misfits(model: DiffusionModel, concept: Concept) -> None:
    """Raise ConceptError unless `concept` was made for this very model."""
    if concept.base_fingerprint != model.base_fingerprint:
        raise ConceptError(
            f"The concept {concept.name!r} was learnt on the model {concept.base_model!r} "
            f"({concept.base_fingerprint[:12]}), but this is {model.name!r} "
            f"({model.base_fingerprint[:12]}). Load that model, or learn the subject on this one."
        )
    parameters = named_parameters(model)
    for name, change in concept.tensors.items():
        if name not in parameters or parameters[name].shape != change.shape:
            raise ConceptError(
                f"The concept {concept.name!r} changes {name!r} of shape {tuple(change.shape)}, "
                f"which the model {model.name!r} does not have. The concept is damaged."
            )


# Files


def _save(concept: Concept, folder: Path) -> Path:
    tensors = {name: tensor.contiguous().cpu() for name, tensor in concept.tensors.items()}
    digest = _digest(tensors)
    weights = folder / f"weights-{digest[:16]}.safetensors"
    was_there, had_weights = folder.exists(), weights.exists()
    try:
        with replacing(weights) as staged:
            _write_tensors(tensors, staged)
        with replacing(folder / MANIFEST) as staged:
            staged.write_text(_manifest(concept, weights.name, digest), encoding="utf-8")
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


def _write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # how safetensors reports a full disk
        raise OSError(str(error)) from error


def _manifest(concept: Concept, weights: str, digest: str) -> str:
    texts = {key: getattr(concept, key) for key in _TEXTS}
    record = dict(concept.record)
    whole = {"format": FORMAT, **texts, "weights": weights, "sha256": digest, "record": record}
    return json.dumps(whole, indent=2) + "\n"


def _load(folder: Path) -> Concept:
    manifest = _read_manifest(folder / MANIFEST)
    weights = folder / manifest["weights"]
    try:
        tensors = load_file(weights)
    except FileNotFoundError as error:
        raise ConceptError(f"{weights} is missing, so the concept cannot be loaded.") from error
    except (OSError, SafetensorError) as error:
        raise ConceptError(f"{weights} is damaged or unreadable: {error}") from error
    if _digest(tensors) != manifest["sha256"]:
        raise ConceptError(f"{weights} is damaged: its content is not what was saved.")
    texts = {key: manifest[key] for key in _TEXTS}
    return Concept(**texts, tensors=tensors, record=manifest["record"])


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: Any = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConceptError(f"{path.parent} is no concept: there is no {MANIFEST} in it.") from error
    except (OSError, ValueError) as error:
        raise ConceptError(f"{path} cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ConceptError(f"{path} is not a concept of format {FORMAT}, the only one known here.")
    for key in (*_TEXTS, "weights", "sha256"):
        if not isinstance(manifest.get(key), str):
            raise ConceptError(f"{path} is damaged: it has no {key!r}.")
    if not isinstance(manifest.get("record"), dict) or not _NAME.fullmatch(manifest["name"]):
        raise ConceptError(f"{path} is damaged: its name or its record is not one.")
    if not _WEIGHTS.fullmatch(manifest["weights"]):
        raise ConceptError(
            f"{path} is damaged: {manifest['weights']!r} is no weights file of ours."
        )
    return manifest


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and contents, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
