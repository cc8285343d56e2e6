"""Drag sessions as files: one safetensors file; what is not a tensor is JSON in its header.

A session comes and goes as the mapping of its fields, so that this module need not know its class.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.drag.engine import Anchor, State
from understudy.drag.points import Point, as_xy, tensor
from understudy.errors import InputError
from understudy.files.reading import check_regular, parse_json
from understudy.files.tensors import load_tensors, save_tensors
from understudy.settings.drag import DragSettings

FORMAT = "understudy drag 1"
STOPS = ("stopped", "reached", "cap", "stalled")
_PARTS = ("front", "first", "second", "points", "targets")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One saved step of a drag: moving rows of the latent; handles as (x, y) in pixels."""

    step: int
    front: Float[Tensor, "1 rows w_dim"]
    points: tuple[Point, ...]


def save_session(path: str | os.PathLike[str], session: Mapping[str, Any]) -> Path:
    """Write the fields of a `DragSession`. Raises OutputError.

    The features of an anchor are not written: they can be computed again.
    """
    tensors: dict[str, Tensor] = {"start": session["start"]}
    if session["mask"] is not None:
        tensors["mask"] = session["mask"]
    states: dict[str, State] = {"state": session["state"]}
    states |= {f"past.{n}": state for n, state in enumerate(session["past"])}
    states |= {f"future.{n}": state for n, state in enumerate(session["future"])}
    for name, state in states.items():
        tensors |= _tensors_of(name, state)
    for number, kept in enumerate(session["kept"]):
        tensors[f"kept.{number}.front"] = kept.front
        tensors[f"kept.{number}.points"] = tensor(kept.points)
    body = {
        "model": session["model"],
        "fingerprint": session["fingerprint"],
        "picture": session["picture"],
        "settings": session["settings"].to_dict(),
        "stop": session["stop"],
        "kept": [kept.step for kept in session["kept"]],
        "past": len(session["past"]),
        "future": len(session["future"]),
        "states": {
            name: {"count": s.count, "step": s.step, "doubtful": s.doubtful}
            for name, s in states.items()
        },
    }
    return save_tensors(path, tensors, {"format": FORMAT, "drag": json.dumps(body)})


def load_session(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of the `DragSession` in a file. Raises InputError, naming the file, for any
    other file."""
    check_regular(path)
    try:
        tensors, header = load_tensors(path)
        if header.get("format") != FORMAT:
            raise InputError(f"{path} is no drag session; make one with: understudy drag")
        body: dict[str, Any] = parse_json(header["drag"], str(path))
        return _session(body, tensors)
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path} is damaged: {error}") from error
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} cannot be read as a drag session: {error}") from error


def _session(body: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    facts = body["states"]

    def state(name: str) -> State:
        return _state(name, tensors, facts[name])

    def kept(number: int, step: int) -> Snapshot:
        points = tensors[f"kept.{number}.points"]
        return Snapshot(step, tensors[f"kept.{number}.front"], as_xy(points))

    height, width = body["picture"]
    if body["stop"] not in STOPS:
        raise ValueError(f"a drag does not stop because of {body['stop']!r}")
    for name, one in tensors.items():
        if one.is_floating_point() and not bool(torch.isfinite(one).all()):
            raise ValueError(f"{name} holds numbers that are not finite")
    return dict(
        model=str(body["model"]),
        fingerprint=str(body["fingerprint"]),
        picture=(int(height), int(width)),
        settings=DragSettings.from_dict(body["settings"]),
        start=tensors["start"],
        state=state("state"),
        mask=tensors.get("mask"),
        kept=tuple(kept(number, step) for number, step in enumerate(body["kept"])),
        past=tuple(state(f"past.{number}") for number in range(body["past"])),
        future=tuple(state(f"future.{number}") for number in range(body["future"])),
        stop=body["stop"],
    )


def _tensors_of(name: str, state: State) -> dict[str, Tensor]:
    found = {f"{name}.{part}": getattr(state, part) for part in _PARTS}
    if state.anchor is not None:
        found[f"{name}.anchor.front"] = state.anchor.front
        found[f"{name}.anchor.points"] = state.anchor.points
    return found


def _state(name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> State:
    anchor = None
    if f"{name}.anchor.front" in tensors:
        anchor = Anchor(tensors[f"{name}.anchor.front"], tensors[f"{name}.anchor.points"])
    return State(
        **{part: tensors[f"{name}.{part}"] for part in _PARTS},
        count=int(facts["count"]),
        step=int(facts["step"]),
        doubtful=bool(facts["doubtful"]),
        anchor=anchor,
    )
