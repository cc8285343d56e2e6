"""Applies concepts to a model, and restores its weights exactly afterwards.

This module does not know how a concept is learnt, nor what a diffusion model computes.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from understudy.concept.tail import opened
from understudy.concept.value import (
    LOW_RANK,
    ROWS,
    TAIL,
    Concept,
    names_in,
    spelled,
    strengths_in,
)
from understudy.diffusion.text import Text
from understudy.errors import ConceptError, PromptError
from understudy.models.interface import DiffusionModel
from understudy.models.word_tables import word_tables


@contextmanager
def applied(model: DiffusionModel, *concepts: Concept) -> Generator[None]:
    """Apply `concepts` to `model` inside the block: each adds its change to the weights, times its
    strength.

    Afterwards the original weights are restored, bit for bit. May be nested; changes add up. A tail
    changes no weights: `embedded` appends it to the prompts that name it. Raises ConceptError for
    a concept of another base model, or two that use the same word, before anything is changed.
    """
    if not concepts:
        yield
        return
    for concept in concepts:
        _refuse_misfits(model, concept)
    _refuse_rivals(concepts)
    apart = _unmerged(model)
    before = {name: list(layer.changes) for name, layer in apart.items()}
    try:
        with untouched(model) as parameters:
            for concept in concepts:
                for name, change in _changes(concept).items():
                    if name in apart:
                        _put_beside(apart[name], change, concept.strength, model.device)
                    else:
                        _apply(parameters[name], change, concept.strength)
            yield
    finally:
        for name, layer in apart.items():
            layer.changes[:] = before[name]


def _unmerged(model: DiffusionModel) -> Mapping[str, Any]:
    """Layers of a quantised model by the name of their weight; changes stay beside them."""
    return getattr(model, "unmerged", {})


def _put_beside(
    layer: Any, change: Mapping[str, Tensor], strength: float, device: torch.device
) -> None:
    a, b, alpha = (change[sort] for sort in ("lora_A", "lora_B", "alpha"))
    layer.changes.append((a.to(device), b.to(device), strength * float(alpha) / len(a)))


@torch.no_grad()
def embedded(
    model: DiffusionModel,
    prompts: Sequence[str],
    *concepts: Concept,
    tail_scale: float | None = None,
) -> Text:
    """The text of prompts in which {rex} names a concept, learnt tails behind those that name them.

    HiPer (Han et al. 2023, arXiv:2303.08767): the tail times `tail_scale` (the concept's own where
    None) stands where `tail.opened` says. With another strength than 1 what is there is moved
    towards it, or beyond. Apply the concepts before. Raises PromptError for a prompt that is too
    long, and for a strength that is not the concept's own (see `with_strengths`).
    """
    for prompt in prompts:
        _refuse_strengths(prompt, concepts)
    texts = [spelled(prompt, *concepts) for prompt in prompts]
    tails = [_tails(prompt, concepts) for prompt in prompts]
    counts = [sum(len(tail) for _, tail in of_row) for of_row in tails]
    text, places = opened(model, model.embed(texts), texts, counts)
    for row, of_row in enumerate(tails):
        end = places[row].stop
        for concept, tail in of_row:
            learnt = tail.to(text.tokens)
            scale = concept.tail_scale if tail_scale is None else tail_scale
            there = text.tokens[row, end - len(tail) : end]
            moved = there + concept.strength * (scale * learnt - there)
            there.copy_(scale * learnt if concept.strength == 1 else moved)
            end -= len(tail)
    return text


def _tails(prompt: str, concepts: Sequence[Concept]) -> list[tuple[Concept, Tensor]]:
    """The concepts that a prompt names and that are learnt tails."""
    named = names_in(prompt)
    return [(c, c.tail) for c in concepts if c.tail is not None and c.phrases.keys() & named]


def _refuse_strengths(prompt: str, concepts: Sequence[Concept]) -> None:
    asked = strengths_in(prompt)
    for concept in concepts:
        for name in concept.phrases.keys() & asked.keys():
            if asked[name] != concept.strength:
                raise PromptError(
                    f"The prompt asks for {name} at strength {asked[name]:g}, and it is applied at "
                    f"{concept.strength:g}. Make the concepts with with_strengths(concepts, "
                    "prompts) and apply those."
                )


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
    """Every trainable parameter as "module.parameter", such as "unet.conv_in.weight".

    Of T5, which does not train whole, the token embedding is among them.
    """
    found = {
        f"{part}.{name}": parameter
        for part, module in model.trainable_modules().items()
        for name, parameter in module.named_parameters()
    }
    for table in word_tables(model).values():
        found.setdefault(table.name, cast(nn.Parameter, table.table.weight))
    return found


@torch.no_grad()
def replace_weights(parameter: nn.Parameter, weights: Tensor) -> None:
    """Let `parameter` be a copy of `weights`, its old data left alone.

    The copy is made in place, so that PyTorch's version counter tells who looks that it changed.
    """
    parameter.data = torch.empty_like(weights)
    parameter.copy_(weights)


# What a concept does to one weight: {"": difference}, the three of LOW_RANK, or the two of ROWS.
Change = dict[str, Tensor]


def _changes(concept: Concept) -> dict[str, Change]:
    """A concept's tensors by the weight they change, the tail left out."""
    changes: dict[str, Change] = {}
    for name, tensor in concept.tensors.items():
        weight, _, sort = name.rpartition(".")
        if sort in LOW_RANK or sort in ROWS:
            changes.setdefault(weight, {})[sort] = tensor
        elif name != TAIL:
            changes.setdefault(name, {})[""] = tensor
    return changes


@torch.no_grad()
def _apply(parameter: nn.Parameter, change: Change, strength: float) -> None:
    """Replace the parameter by itself plus the change times strength, in float32 at least.

    Learnt rows stand in the place of others: those are moved towards them.
    """
    wide = torch.promote_types(parameter.dtype, torch.float32)
    total = parameter.data.to(wide)
    given = {sort: tensor.to(parameter.device) for sort, tensor in change.items()}
    if "" in given:
        total = total + strength * given[""].to(wide)
    if "lora_A" in given:
        a, b = given["lora_A"].to(wide), given["lora_B"].to(wide)
        scale = strength * given["alpha"].to(wide) / len(a)
        total = total + (scale * (b @ a)).reshape(total.shape)
    if "rows" in given:
        ids, rows = given["ids"], given["rows"].to(wide)
        rows = rows if strength == 1 else total[ids] + strength * (rows - total[ids])
        total = total.index_copy(0, ids, rows)
    replace_weights(parameter, total.to(parameter.dtype))


def _refuse_misfits(model: DiffusionModel, concept: Concept) -> None:
    """Raise ConceptError unless `concept` was made for this very model."""
    if concept.base_fingerprint != model.base_fingerprint:
        raise ConceptError(
            f"The concept {concept.name!r} was learnt on the model {concept.base_model!r} "
            f"({concept.base_fingerprint[:12]}), but this is {model.name!r} "
            f"({model.base_fingerprint[:12]}). Load that model, or learn the subject on this one."
        )
    parameters: dict[str, Tensor] = {**named_parameters(model)}
    for name, layer in _unmerged(model).items():
        parameters[name] = torch.empty(layer.shape, device="meta")
    for name, change in _changes(concept).items():
        if name in _unmerged(model) and set(change) != set(LOW_RANK):
            raise ConceptError(
                f"The concept {concept.name!r} changes {name!r} by more than a low-rank matrix, "
                f"and the weights of {model.name!r} are quantised. Load the model with --dtype "
                "bfloat16, or learn the concept with --method lora."
            )
        if name not in parameters or not _fits(change, parameters[name]):
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in change.values())
            raise ConceptError(
                f"The concept {concept.name!r} changes {name!r} by tensors of shape {shapes}, "
                f"which the model {model.name!r} does not have. The concept is damaged."
            )


def _fits(change: Change, parameter: Tensor) -> bool:
    """Whether a change is whole, and of the shapes that this parameter needs."""
    shapes = {sort: tuple(tensor.shape) for sort, tensor in change.items()}
    outputs = parameter.shape[0] if parameter.ndim else 1
    ok = shapes.pop("", parameter.shape) == parameter.shape
    if set(LOW_RANK) & shapes.keys():
        a, b, alpha = (shapes.pop(sort, None) for sort in LOW_RANK)
        inputs = parameter.numel() // outputs
        ok = ok and a is not None and a[1:] == (inputs,) and b == (outputs, a[0]) and alpha == ()
    if set(ROWS) & shapes.keys():
        rows, ids = (shapes.pop(sort, None) for sort in ROWS)
        ok = ok and rows is not None and rows[1:] == parameter.shape[1:] and ids == rows[:1]
        ok = (
            ok
            and "ids" in change
            and bool(((0 <= change["ids"]) & (change["ids"] < outputs)).all())
        )
    return ok and not shapes


def _refuse_rivals(concepts: Sequence[Concept]) -> None:
    """Raise ConceptError when two concepts put rows of their own on the same token."""
    owners: dict[tuple[str, int], Concept] = {}
    for concept in concepts:
        for name, change in _changes(concept).items():
            for token in change.get("ids", torch.empty(0)).tolist():
                other = owners.setdefault((name, int(token)), concept)
                if other is not concept:
                    raise ConceptError(
                        f"{other.name!r} and {concept.name!r} were both learnt as the same word: "
                        f"{other.identifier!r} and {concept.identifier!r}. Apply one of them, or "
                        f"learn one again with another --identifier."
                    )
