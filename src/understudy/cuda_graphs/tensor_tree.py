"""Nested values that hold tensors: which tensors, in which structure, and the same with others.

A tree is a tensor, a constant, or a tuple, list, mapping or frozen dataclass of trees.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

CONSTANTS = frozenset({type(None), bool, int, float, str, torch.dtype, torch.device})


class OpaqueError(TypeError):
    """A tree holds a value that is neither a tensor nor a constant, such as a function."""


def ignored(*_: Any) -> None:
    """A receiver that drops what it gets: the only function that may be part of a tree."""


def structure(tree: Any, tensors: list[Tensor]) -> Hashable:
    """All of a tree but the values of its tensors; equal for trees that differ in those only.

    tensors: takes the tree's tensors, each once, in order. Of each the shape, the strides, the
    dtype and the device belong to the structure. Raises OpaqueError.
    """
    return _structure(tree, tensors, {})


def _structure(tree: Any, tensors: list[Tensor], places: dict[int, int]) -> Hashable:
    kind = type(tree)
    if kind in CONSTANTS:
        return tree
    if isinstance(tree, Tensor):
        place = places.setdefault(id(tree), len(tensors))
        if place < len(tensors):
            return Tensor, place
        tensors.append(tree)
        # Of an axis of one place the stride says nothing, and it differs between equal tensors.
        strides = [n if size > 1 else 0 for size, n in zip(tree.shape, tree.stride(), strict=True)]
        return place, tree.shape, *strides, tree.dtype, tree.device
    if isinstance(tree, (tuple, list)):
        return kind, *[_structure(one, tensors, places) for one in tree]
    if isinstance(tree, Mapping):
        if not all(type(key) in CONSTANTS for key in tree):
            raise OpaqueError(f"a mapping has keys that are no constants: {list(tree)}")
        return kind, *[(key, _structure(one, tensors, places)) for key, one in tree.items()]
    if is_dataclass(kind):
        parts = [_structure(getattr(tree, name), tensors, places) for name in _names(kind)]
        return kind, *parts
    if tree is ignored:
        return ignored
    raise OpaqueError(f"a {kind.__name__} is neither a tensor nor a constant")


@lru_cache(maxsize=256)
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def tensors_of(tree: Any) -> list[Tensor]:
    """The tensors of a tree, each once. Raises OpaqueError."""
    found = list[Tensor]()
    structure(tree, found)
    return found


def rebuilt(tree: Any, old: Sequence[Tensor], new: Sequence[Tensor]) -> Any:
    """The tree with tensors `new` in the place of `old`."""
    return _rebuilt(tree, {id(one): other for one, other in zip(old, new, strict=True)})


def _rebuilt(tree: Any, others: Mapping[int, Tensor]) -> Any:
    if isinstance(tree, Tensor):
        return others[id(tree)]
    if isinstance(tree, (tuple, list)):
        return type(tree)(_rebuilt(one, others) for one in tree)
    if isinstance(tree, Mapping):
        return {key: _rebuilt(one, others) for key, one in tree.items()}
    if is_dataclass(tree) and not isinstance(tree, type):
        parts = {name: _rebuilt(getattr(tree, name), others) for name in _names(type(tree))}
        return replace(tree, **parts)
    return tree


def alike(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Memory for as many tensors of these shapes, on a device."""
    return [torch.empty_like(one, device=device, requires_grad=False) for one in tensors]


@torch.no_grad()
def copy_all(into: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Copy values into tensors of their shapes: one kernel for all of a dtype, where their memory
    is arranged alike."""
    groups: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for to, value in zip(into, values, strict=True):
        same = (to.dtype, to.device, to.stride()) == (value.dtype, value.device, value.stride())
        if same:
            tos, froms = groups.setdefault(to.dtype, ([], []))
            tos.append(to)
            froms.append(value)
        else:
            to.copy_(value, non_blocking=True)
    for tos, froms in groups.values():
        torch._foreach_copy_(tos, froms)  # pyright: ignore


def copied(tree: Any) -> Any:
    """The tree with copies of its tensors."""
    old = tensors_of(tree)
    new = [torch.empty_like(one) for one in old]
    copy_all(new, old)
    return rebuilt(tree, old, new)
