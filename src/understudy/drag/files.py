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

from jaxtyping import Float
from torch import Tensor

from understudy.drag.points import Point, as_xy, tensor
from understudy.drag.state import Anchor, State
from understudy.errors import InputError
from understudy.files import spec
from understudy.files.tensors import read_declared, save_tensors
from understudy.settings.drag import DragSettings

FORMAT = "understudy drag 1"
STOPS = ("stopped", "reached", "cap", "stalled")
# Tensors of a state; "front" is the name of moving_ws in files.
_PARTS = ("front", "first", "second", "points", "targets")
_STATE = r"(state|past\.\d{1,6}|future\.\d{1,6})"
_COUNT = spec.Number(0, 1e6, whole=True)
DECLARED = spec.TensorFile(
    FORMAT,
    "drag",
    "drag session",
    "understudy drag",
    spec.Record(
        {
            "model": spec.Text(4096),
            "fingerprint": spec.Text(400),
            "picture": spec.Items(spec.Number(1, 65_536, whole=True), 2, 2),
            "settings": spec.Table(spec.Scalar(), most=1_000),
            "stop": spec.Text(choices=STOPS),
            "kept": spec.Items(_COUNT, most=100_000),
            "past": spec.Number(0, 10_000, whole=True),
            "future": spec.Number(0, 10_000, whole=True),
            "states": spec.Table(
                spec.Record({"count": _COUNT, "step": _COUNT, "doubtful": spec.Flag()}), _STATE
            ),
        }
    ),
    (
        spec.Tensors("start", "1 num_ws w_dim", needed=True),
        spec.Tensors("mask", "1 1 _ _"),
        spec.Tensors(_STATE + r"\.(?:front|first|second|anchor\.front)", "1 rows w_dim"),
        spec.Tensors(_STATE + r"\.(?:points|targets)", ".n 2", empty=True),
        spec.Tensors(_STATE + r"\.anchor\.points", ".n 2", empty=True),
        spec.Tensors(r"kept\.\d{1,6}\.front", "1 rows w_dim"),
        spec.Tensors(r"kept\.\d{1,6}\.points", "_ 2", empty=True),
    ),
)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One saved step of a drag: moving rows of the latent; handles as (x, y) in pixels."""

    step: int
    moving_ws: Float[Tensor, "1 rows w_dim"]
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
        tensors[f"kept.{number}.front"] = kept.moving_ws
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
    body, tensors = read_declared(path, DECLARED)
    try:
        settings = DragSettings.from_dict(body["settings"])
        _check_whole(body, tensors, settings.layers)
        return _session(body, tensors, settings)
    except (InputError, spec.Unfit) as error:
        raise InputError(f"{path} is damaged: {error}") from None


def _check_whole(body: Mapping[str, Any], tensors: Mapping[str, Tensor], layers: int) -> None:
    """Raise `Unfit` unless every state and snapshot that is counted has its tensors."""
    states = ["state"]
    states += [f"{kind}.{n}" for kind in ("past", "future") for n in range(body[kind])]
    if set(states) != body["states"].keys():
        raise spec.Unfit("it does not have as many states as its header says.")
    wanted = {"start"} | {f"{name}.{part}" for name in states for part in _PARTS}
    wanted |= {f"kept.{n}.{part}" for n in range(len(body["kept"])) for part in ("front", "points")}
    anchors = {name for name in states if f"{name}.anchor.front" in tensors}
    wanted |= {f"{name}.anchor.{part}" for name in anchors for part in ("front", "points")}
    if wanted != tensors.keys() - {"mask"}:
        odd = sorted(wanted ^ (tensors.keys() - {"mask"}))[0]
        raise spec.Unfit(f"the tensor {spec.shown(odd)} is missing, or belongs to no state.")
    rows = tensors["state.front"].shape[1]
    if layers > tensors["start"].shape[1] or rows not in (1, layers):
        raise spec.Unfit(f"its latent has {rows} rows for {layers} layers.")
    if "mask" in tensors and list(tensors["mask"].shape[-2:]) != body["picture"]:
        raise spec.Unfit("its mask and its picture have different sizes.")


def _session(
    body: dict[str, Any], tensors: Mapping[str, Tensor], settings: DragSettings
) -> dict[str, Any]:
    facts = body["states"]

    def state(name: str) -> State:
        return _state(name, tensors, facts[name])

    def kept(number: int, step: int) -> Snapshot:
        points = tensors[f"kept.{number}.points"]
        return Snapshot(step, tensors[f"kept.{number}.front"], as_xy(points))

    height, width = body["picture"]
    return dict(
        model=body["model"],
        fingerprint=body["fingerprint"],
        picture=(height, width),
        settings=settings,
        start=tensors["start"],
        state=state("state"),
        mask=tensors.get("mask"),
        kept=tuple(kept(number, step) for number, step in enumerate(body["kept"])),
        past=tuple(state(f"past.{number}") for number in range(body["past"])),
        future=tuple(state(f"future.{number}") for number in range(body["future"])),
        stop=body["stop"],
    )


def _tensors_of(name: str, state: State) -> dict[str, Tensor]:
    first = {f"{name}.front": state.moving_ws}
    found = first | {f"{name}.{part}": getattr(state, part) for part in _PARTS[1:]}
    if state.anchor is not None:
        found[f"{name}.anchor.front"] = state.anchor.moving_ws
        found[f"{name}.anchor.points"] = state.anchor.points
    return found


def _state(name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> State:
    anchor = None
    if f"{name}.anchor.front" in tensors:
        anchor = Anchor(tensors[f"{name}.anchor.front"], tensors[f"{name}.anchor.points"])
    return State(
        *(tensors[f"{name}.{part}"] for part in _PARTS),
        count=int(facts["count"]),
        step=int(facts["step"]),
        doubtful=bool(facts["doubtful"]),
        anchor=anchor,
    )
