"""A scene as a plain value: subjects and their places, light, camera.

Units: one toy is about 1.0 high; x to the right of the picture, y up, z towards the camera; the
ground is y = 0. Angles are degrees; a yaw of 0 looks into the camera, positive turns the toy
towards the right of the picture. Knows nothing of pixels.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, fields
from typing import Any

from understudy.errors import InputError
from understudy.files import spec
from understudy.files.reading import parse_json
from understudy.toybox import vocabulary as words


def _one_of(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{what} must be one of {', '.join(allowed)}. Got {value!r}.")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What makes a toy this toy and no other; unchanged by pose, place and light."""

    class_name: str
    proportions: tuple[float, ...] = (0.5,) * len(words.PROPORTIONS)
    primary: str = "brown"
    secondary: str = "white"
    tint: tuple[float, ...] = (0.0,) * 6  # added to the two colours' sRGB
    pattern: str = "plain"
    pattern_scale: float = 0.5
    pattern_phase: tuple[float, float, float] = (0.0, 0.0, 0.0)
    accessory: str = "none"
    accessory_colour: str = "red"

    def __post_init__(self) -> None:
        _one_of("class_name", self.class_name, words.CLASSES)
        _one_of("primary", self.primary, tuple(words.COLOURS))
        _one_of("secondary", self.secondary, tuple(words.COLOURS))
        _one_of("pattern", self.pattern, words.PATTERNS)
        _one_of("accessory", self.accessory, words.ACCESSORIES)
        _one_of("accessory_colour", self.accessory_colour, tuple(words.COLOURS))
        wanted = len(words.PROPORTIONS)
        if len(self.proportions) != wanted or not all(0 <= p <= 1 for p in self.proportions):
            raise InputError(
                f"proportions must be {wanted} numbers in [0, 1]. Got {self.proportions}."
            )


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How a toy holds itself, and where."""

    stance: str = "standing"
    x: float = 0.0
    z: float = 0.0
    size: float = 1.0
    yaw: float = 0.0
    head_yaw: float = 0.0
    head_pitch: float = 0.0
    limb: float = 0.5  # in [0, 1]: how high the waving arm, how wide the wings, how long the stride

    def __post_init__(self) -> None:
        _one_of("stance", self.stance, words.ALL_STANCES)


@dataclass(frozen=True, kw_only=True)
class Figure:
    identity: Identity
    pose: Pose


@dataclass(frozen=True, kw_only=True)
class Prop:
    """Something that only stands about; in front of a subject it is an occluder."""

    kind: str
    colour: str
    x: float
    z: float
    size: float = 0.3
    yaw: float = 0.0

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, words.PROPS)
        _one_of("colour", self.colour, tuple(words.COLOURS))


@dataclass(frozen=True, kw_only=True)
class Background:
    kind: str
    phase: float = 0.0  # shifts textures, hills and clouds
    shade: float = 0.0  # in [-1, 1]: a little darker or lighter

    def __post_init__(self) -> None:
        _one_of("background", self.kind, tuple(words.BACKGROUNDS))


@dataclass(frozen=True, kw_only=True)
class Light:
    kind: str = "sunny"
    azimuth: float = -40.0  # where it comes from; 0 is behind the camera, negative from the left

    def __post_init__(self) -> None:
        _one_of("light", self.kind, words.LIGHTS)


@dataclass(frozen=True, kw_only=True)
class Camera:
    distance: float = 3.9
    height: float = 1.25
    aim: float = 0.52  # height of the point in the middle of the picture
    pan: float = 0.0  # sideways, in units
    field: float = 30.0  # vertical field of view


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything the renderer needs; equal scenes give equal pictures."""

    subjects: tuple[Figure, ...]
    background: Background
    props: tuple[Prop, ...] = ()
    light: Light = Light()
    camera: Camera = Camera()

    def to_json(self) -> str:
        """The scene as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Scene:
        """The scene that `to_json` wrote. Raises InputError for anything else."""
        try:
            record = parse_json(text, "A toybox scene")
            DECLARED.check(record, "the scene")
            return _scene(record)
        except spec.Unfit as problem:
            raise InputError(f"Expected a toybox scene as JSON, got this: {problem}.") from None


def _declared(kind: type[Any]) -> spec.Record:
    """What the JSON of one of the dataclasses above may hold, by the types of its fields."""
    kinds: dict[str, spec.Kind] = {"str": spec.Text(400), "float": spec.Number(-1e4, 1e4)}
    needed = {f.name for f in fields(kind) if f.default is dataclasses.MISSING}
    found = {f.name: kinds[str(f.type)] for f in fields(kind) if str(f.type) in kinds}
    tuples = {f.name: len(f.default) for f in fields(kind) if isinstance(f.default, tuple)}
    found |= {name: spec.Items(kinds["float"], size, size) for name, size in tuples.items()}
    return spec.Record(
        {name: one for name, one in found.items() if name in needed},
        {name: one for name, one in found.items() if name not in needed},
    )


DECLARED = spec.Record(
    {
        "subjects": spec.Items(
            spec.Record({"identity": _declared(Identity), "pose": _declared(Pose)}), most=1_000
        ),
        "background": _declared(Background),
    },
    {
        "props": spec.Items(_declared(Prop), most=1_000),
        "light": _declared(Light),
        "camera": _declared(Camera),
    },
)


def _value(kind: type[Any], record: dict[str, Any]) -> Any:
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in record.items()})


def _scene(record: dict[str, Any]) -> Scene:
    return Scene(
        subjects=tuple(
            Figure(identity=_value(Identity, s["identity"]), pose=_value(Pose, s["pose"]))
            for s in record["subjects"]
        ),
        background=_value(Background, record["background"]),
        props=tuple(_value(Prop, p) for p in record.get("props", ())),
        light=_value(Light, record.get("light", {})),
        camera=_value(Camera, record.get("camera", {})),
    )
