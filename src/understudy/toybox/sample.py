"""Draws identities and scenes from seeds.

A seed gives one scene, for ever. Some identities and a few pairs of class and background are
reserved: with `held_out=False` they never occur, so a model trained on those scenes has never seen
them. Knows nothing of pixels.
"""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np

from understudy.toybox import vocabulary as words
from understudy.toybox.scene import (
    Background,
    Camera,
    Figure,
    Identity,
    Light,
    Pose,
    Prop,
    Scene,
)

RESERVED_PAIRS = frozenset(
    {("cat", "beach"), ("robot", "forest"), ("duck", "night"), ("car", "snow"), ("mug", "desert")}
)
_COLOURS = tuple(words.COLOURS)
_BACKGROUNDS = tuple(words.BACKGROUNDS)


def is_reserved(identity: Identity) -> bool:
    """Whether this kind of identity is kept out of all training: about one in eight."""
    look = (identity.class_name, identity.primary, identity.secondary, identity.pattern)
    return zlib.crc32(" ".join((*look, identity.accessory)).encode()) % 8 == 0


def _generator(seed: int, what: int) -> np.random.Generator:
    return np.random.default_rng([seed, what])


def sample_identity(seed: int, class_name: str | None = None, *, held_out: bool = True) -> Identity:
    """The toy of a seed: any class, or the one named. `held_out` chooses among reserved ones."""
    rng = _generator(seed, 1)
    while True:
        identity = _identity(rng, class_name)
        if is_reserved(identity) == held_out:
            return identity


def _identity(rng: np.random.Generator, class_name: str | None) -> Identity:
    primary, secondary = rng.choice(_COLOURS, 2, replace=False)
    return Identity(
        class_name=class_name or str(rng.choice(words.CLASSES)),
        proportions=tuple(float(p) for p in rng.random(len(words.PROPORTIONS))),
        primary=str(primary),
        secondary=str(secondary),
        tint=tuple(float(t) for t in rng.normal(0, 0.022, 6)),
        pattern=str(rng.choice(words.PATTERNS, p=(0.4, 0.2, 0.2, 0.2))),
        pattern_scale=float(rng.random()),
        pattern_phase=_triple(rng),
        accessory=str(rng.choice(words.ACCESSORIES, p=(0.4, 0.12, 0.12, 0.12, 0.12, 0.12))),
        accessory_colour=str(rng.choice(_COLOURS)),
    )


def _triple(rng: np.random.Generator) -> tuple[float, float, float]:
    x, y, z = rng.random(3)
    return float(x), float(y), float(z)


def sample_pose(rng: np.random.Generator, class_name: str) -> Pose:
    """A stance the class can take, turned somewhat away from the camera."""
    stance = str(rng.choice(words.STANCES[class_name]))
    tall = 0.84 if stance == "waving" else 1.0
    return Pose(
        stance=stance,
        x=float(rng.uniform(-0.28, 0.28)),
        z=float(rng.uniform(-0.25, 0.25)),
        size=float(tall * rng.uniform(0.92, 1.12)),
        yaw=float(np.clip(rng.normal(0, 36), -80, 80)),
        head_yaw=float(np.clip(rng.normal(0, 14), -30, 30)),
        head_pitch=float(rng.uniform(-8, 10)),
        limb=float(rng.random()),
    )


def sample_scene(
    seed: int,
    *,
    identity: Identity | None = None,
    background: str | None = None,
    subjects: int | None = None,
    props: int | None = None,
    occluded: bool | None = None,
    held_out: bool = True,
) -> Scene:
    """The scene of a seed; what is given is taken, the rest is drawn.

    Toys other than `identity` are reserved ones exactly when `held_out`; reserved pairs of class
    and background occur only when `held_out`, or when asked for by name.
    """
    rng = _generator(seed, 2)
    count = subjects or int(rng.choice((1, 2, 3), p=(0.84, 0.12, 0.04)))
    toys = [identity or sample_identity(int(rng.integers(2**31)), held_out=held_out)]
    toys += [sample_identity(int(rng.integers(2**31)), held_out=held_out) for _ in range(count - 1)]
    place = background or str(rng.choice(_BACKGROUNDS))
    pairs = {(toy.class_name, place) for toy in toys}
    while background is None and not held_out and pairs & RESERVED_PAIRS:
        place = str(rng.choice(_BACKGROUNDS))
        pairs = {(toy.class_name, place) for toy in toys}
    poses = [sample_pose(rng, toy.class_name) for toy in toys]
    if count > 1:
        poses = _side_by_side(rng, poses)
    hide = bool(rng.random() < 0.06) if occluded is None else occluded
    return Scene(
        subjects=tuple(Figure(identity=i, pose=p) for i, p in zip(toys, poses, strict=True)),
        background=Background(
            kind=place, phase=float(rng.random()), shade=float(rng.uniform(-1, 1))
        ),
        props=_props(rng, poses, props, hide),
        light=Light(
            kind=str(rng.choice(words.LIGHTS)),
            azimuth=float(rng.choice((-1, 1)) * rng.uniform(15, 65)),
        ),
        camera=Camera(
            distance=float(rng.uniform(3.6, 4.1)),
            height=float(rng.uniform(0.85, 1.2)),
            aim=float(rng.uniform(0.54, 0.62)),
            pan=float(rng.uniform(-0.08, 0.08)),
        ),
    )


def _side_by_side(rng: np.random.Generator, poses: list[Pose]) -> list[Pose]:
    """Two or three toys share the picture: smaller, spread from left to right."""
    spots = {2: (-0.44, 0.44), 3: (-0.66, 0.0, 0.66)}[len(poses)]
    size = {2: 0.80, 3: 0.66}[len(poses)]
    return [
        dataclasses.replace(pose, x=float(x + rng.uniform(-0.06, 0.06)), size=size * pose.size)
        for pose, x in zip(poses, rng.permutation(spots), strict=True)
    ]


def _props(
    rng: np.random.Generator, poses: list[Pose], wanted: int | None, hide: bool
) -> tuple[Prop, ...]:
    """Props beside and behind; the occluder, if any, stands before the first subject."""
    count = int(rng.choice((0, 1, 2), p=(0.45, 0.4, 0.15))) if wanted is None else wanted
    found: list[Prop] = []
    sides = rng.permutation((-1.0, 1.0))
    for k in range(count):
        x = float(sides[k % 2] * rng.uniform(0.62, 0.86))
        z = float(rng.uniform(-0.75, 0.15))
        if any(abs(pose.x - x) < 0.34 and abs(pose.z - z) < 0.5 for pose in poses):
            z = -0.95
        found.append(_prop(rng, x, z, float(rng.uniform(0.24, 0.42))))
    if hide:
        x = float(poses[0].x + rng.choice((-1, 1)) * rng.uniform(0.12, 0.30))
        found.append(_prop(rng, x, poses[0].z + 0.62, float(rng.uniform(0.24, 0.34))))
    return tuple(found)


def _prop(rng: np.random.Generator, x: float, z: float, size: float) -> Prop:
    kind = str(rng.choice(words.PROPS))
    colour = "green" if kind == "tree" else str(rng.choice(_COLOURS))
    tall = {"tree": 1.5, "cone": 1.15}.get(kind, 1.0)
    return Prop(kind=kind, colour=colour, x=x, z=z, size=size * tall, yaw=float(rng.uniform(0, 90)))


def subject_photos(
    seed: int, count: int = 5, *, class_name: str | None = None, held_out: bool = True
) -> list[Scene]:
    """One toy photographed `count` times: other places, poses, lights; alone and unhidden."""
    identity = sample_identity(seed, class_name, held_out=held_out)
    rng = _generator(seed, 3)
    allowed = [
        b for b in _BACKGROUNDS if held_out or (identity.class_name, b) not in RESERVED_PAIRS
    ]
    order = [allowed[i] for i in rng.permutation(len(allowed))]
    return [
        sample_scene(
            int(rng.integers(2**31)), identity=identity, background=order[k % len(order)],
            subjects=1, props=0, occluded=False, held_out=held_out,
        )
        for k in range(count)
    ]  # fmt: skip
