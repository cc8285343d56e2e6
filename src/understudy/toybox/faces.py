"""A toy's face in close-up, as a plain value: the domain of the built-in generator.

Every number of a `Face` is in [0, 1] and changes the picture continuously, so that faces can be
interpolated, and a generator can be shown all of them. `SHAPE` moves outlines, `LOOK` colours and
light. Knows nothing of pixels.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from understudy.errors import InputError
from understudy.files import spec
from understudy.files.reading import parse_json


@dataclass(frozen=True, kw_only=True)
class Face:
    """One toy face in its light; equal faces give equal pictures. 0.5 is the middle of all."""

    turn: float = 0.5  # 0: to the left of the picture, 1: to its right
    nod: float = 0.5  # 1: looks down
    tilt: float = 0.5
    mouth: float = 0.3  # how far open
    smile: float = 0.7
    left_eye: float = 0.8  # how far open; left is the toy's own left, on the picture's right
    right_eye: float = 0.8
    gaze_x: float = 0.5
    gaze_y: float = 0.5
    ear_length: float = 0.5
    ear_fold: float = 0.2  # 0: upright, 1: hanging
    ear_width: float = 0.5
    ear_spread: float = 0.5
    snout_length: float = 0.4
    snout_width: float = 0.5
    head_width: float = 0.5
    eye_size: float = 0.5
    fur: float = 0.3  # along the palette: black, brown, red, ... pink, white, grey
    fur_light: float = 0.5
    muzzle: float = 0.6  # how much paler than the fur
    eyes: float = 0.5  # colour of the irises
    patch: float = 0.2  # a dark patch about the left eye: none below 0.4
    stripes: float = 0.2  # on the forehead: none below 0.4
    scarf: float = 0.55
    backdrop: float = 0.6
    backdrop_light: float = 0.6
    light_from: float = 0.3  # 0: from the left, 1: from the right
    light_warm: float = 0.5  # 0: grey and soft, 1: evening sun

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise InputError(f"A face's {name} is a number in [0, 1]. Got {value!r}.")

    def to_json(self) -> str:
        """The face as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Face:
        """The face that `to_json` wrote. Raises InputError for anything else."""
        try:
            told = parse_json(text, "A toy face")
            spec.Record({}, {name: spec.Number(0, 1) for name in PARAMETERS}).check(
                told, "the face"
            )
        except spec.Unfit as problem:
            raise InputError(f"Expected a toy face as JSON, got this: {problem}.") from None
        return cls(**told)

    def numbers(self) -> tuple[float, ...]:
        """All numbers, in the order of `PARAMETERS`."""
        return dataclasses.astuple(self)

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Face:
        """The reverse of `numbers`."""
        return cls(**dict(zip(PARAMETERS, map(float, numbers), strict=True)))


PARAMETERS = tuple(field.name for field in fields(Face))
SHAPE = PARAMETERS[: PARAMETERS.index("fur")]
LOOK = PARAMETERS[PARAMETERS.index("fur") :]


def sample_face(seed: int) -> Face:
    """The face of a seed: every number drawn alike from [0, 1]."""
    return Face.of(np.random.default_rng([seed, 3]).random(len(PARAMETERS)).tolist())
