"""The held-out cases that every measurement draws from: reserved toys in seeds of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from understudy import toybox
from understudy.image import to_tensor
from understudy.toybox import Identity, Rendering, Scene

FIRST_SEED = 20_000_000  # far from any training scene's; toys and pairs are reserved besides
LEARNABLE = ("cat", "dog", "bear", "rabbit", "robot", "penguin", "car", "elephant")


def scene(number: int) -> Scene:
    """Held-out scene `number`, with one subject."""
    return toybox.sample_scene(FIRST_SEED + number, subjects=1, held_out=True)


def telling_caption(of: Scene, number: int) -> str:
    """The first of the scene's captions that names its main colour and its background."""
    colour, place = of.subjects[0].identity.primary, toybox.BACKGROUNDS[of.background.kind]
    for k in range(100):
        text = toybox.caption(of, FIRST_SEED + 100 * number + k)
        if place in text and f"{colour} {of.subjects[0].identity.class_name}" in text:
            return text
    raise AssertionError(f"no caption of scene {number} names both: {text}")


@dataclass(frozen=True)
class Shown:
    """A scene and what is known of its picture, as tensors."""

    scene: Scene
    picture: Float[Tensor, "1 3 128 128"]
    mask: Float[Tensor, "1 1 128 128"]  # visible part of the subject
    points: Float[Tensor, "1 k 2"]  # 0 where the class lacks the point
    visible: Tensor  # "1 k" bool


def shown(of: Scene) -> Shown:
    drawn: Rendering = toybox.render(of, 128)
    points = torch.zeros(1, len(toybox.POINTS), 2)
    visible = torch.zeros(1, len(toybox.POINTS), dtype=torch.bool)
    for name, point in drawn.keypoints[0].items():
        index = toybox.POINTS.index(name)
        points[0, index] = torch.tensor([point.x, point.y])
        visible[0, index] = point.visible
    mask = torch.from_numpy(drawn.masks[:1].copy())[None]
    return Shown(of, to_tensor(drawn.picture), mask, points, visible)


def pictures(scenes: list[Scene]) -> Float[Tensor, "n 3 128 128"]:
    return torch.cat([to_tensor(toybox.render(one, 128).picture) for one in scenes])


@dataclass(frozen=True)
class Subject:
    """A held-out toy to learn: its photos, more of it that nobody learns from, and its like."""

    number: int
    identity: Identity
    photos: list[Scene]  # four to learn from
    unseen: list[Scene]  # four more, for scoring alone
    others: list[Scene]  # four photos of each of four other toys of the class

    @property
    def name(self) -> str:
        return f"{self.identity.class_name}{self.number}"


def subject(number: int) -> Subject:
    """Held-out subject `number` of the measurements; each has another class, up to eight."""
    noun = LEARNABLE[number % len(LEARNABLE)]
    seed = FIRST_SEED + 1000 * (number + 1)
    photos = toybox.subject_photos(seed, 8, class_name=noun, held_out=True)
    others = [
        photo
        for k in range(1, 5)
        for photo in toybox.subject_photos(seed + k, 4, class_name=noun, held_out=True)
    ]
    return Subject(number, photos[0].subjects[0].identity, photos[:4], photos[4:], others)


@dataclass(frozen=True)
class Swap:
    """A source scene, who is to take the part in it, and the right answer."""

    name: str
    subject: Subject
    source: Scene
    right: Scene
    prompt: str  # of the source
    changed: Float[Tensor, "1 1 128 128"]  # where source and right answer may differ


def swap(number: int) -> Swap:
    """Case `number`: subject number // 4 into its own class (cases 0, 1) or another (2, 3)."""
    learnt = subject(number // 4)
    noun = learnt.identity.class_name
    if number % 4 >= 2:
        near = [n for n in toybox.CLASSES if n != noun and kind(n) == kind(noun)]
        noun = near[number % len(near)]
    seed = FIRST_SEED + 500_000 + number
    actor = toybox.sample_identity(seed, noun, held_out=True)
    source = toybox.sample_scene(
        seed, identity=actor, subjects=1, props=1, occluded=False, held_out=True
    )
    right = toybox.recast(source, 0, learnt.identity)
    region = toybox.influence(source, 0, 128) | toybox.influence(right, 0, 128)
    changed = torch.from_numpy(np.ascontiguousarray(region)).float()[None, None]
    changed = torch.nn.functional.max_pool2d(changed, 5, 1, 2)  # and two pixels about it
    prompt = toybox.plain_caption(source, colour=False)
    return Swap(f"{number:02d} {noun} to {learnt.name}", learnt, source, right, prompt, changed)


def kind(noun: str) -> tuple[str, ...]:
    """Classes that can take one another's stances."""
    return toybox.STANCES[noun]
