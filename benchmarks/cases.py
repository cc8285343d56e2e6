"""The held-out cases that every measurement draws from: reserved toys in seeds of their own."""

from __future__ import annotations

from dataclasses import dataclass

from understudy import toybox
from understudy.toybox import Identity, Scene

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
