"""Right answers: the same scene with another toy in the subject's place, or in another pose."""

from __future__ import annotations

import dataclasses
from typing import Any

from understudy.errors import InputError
from understudy.toybox import vocabulary as words
from understudy.toybox.scene import Figure, Identity, Scene


def recast(scene: Scene, subject: int, identity: Identity) -> Scene:
    """The scene with `identity` in the place and pose of a subject: the right answer of a swap.

    A stance that the new class cannot take becomes its nearest: wings flap where an arm waved,
    things just stand.
    """
    old = _subject(scene, subject)
    able = words.STANCES[identity.class_name]
    near = {"waving": "flapping", "flapping": "waving", "parked": "standing"}
    stance = old.pose.stance
    if stance not in able:
        stance = near.get(stance, able[0])
    if stance not in able:
        stance = able[0]
    pose = dataclasses.replace(old.pose, stance=stance)
    return _with(scene, subject, Figure(identity=identity, pose=pose))


def repose(scene: Scene, subject: int, **pose: Any) -> Scene:
    """The scene with a subject's pose changed: the right answer of a drag."""
    old = _subject(scene, subject)
    known = {field.name for field in dataclasses.fields(old.pose)}
    if set(pose) - known:
        unknown = ", ".join(sorted(set(pose) - known))
        raise InputError(f"A pose has {', '.join(sorted(known))}. Got {unknown}.")
    new = dataclasses.replace(old.pose, **pose)
    return _with(scene, subject, Figure(identity=old.identity, pose=new))


def _subject(scene: Scene, subject: int) -> Figure:
    if not 0 <= subject < len(scene.subjects):
        raise InputError(f"The scene has {len(scene.subjects)} subjects. Got number {subject}.")
    return scene.subjects[subject]


def _with(scene: Scene, index: int, subject: Figure) -> Scene:
    cast = list(scene.subjects)
    cast[index] = subject
    return dataclasses.replace(scene, subjects=tuple(cast))
