"""The held-out cases that every measurement draws from: reserved toys in seeds of their own."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from understudy import toybox
from understudy.evaluate import truth
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


@dataclass(frozen=True)
class Swap:
    """A source scene, who is to take the part in it, and the right answer.

    occurrence: which of a repeated word in the prompt is meant; None where it stands once.
    """

    name: str
    kind: str
    subject: Subject
    source: Scene
    right: Scene
    prompt: str  # of the source
    occurrence: int | None
    changed: Float[Tensor, "1 1 128 128"]  # where source and right answer may differ


# Eight cases a subject: into its own class, one alike, behind a prop, beside another toy, and into
# classes of another shape.
KINDS = ("own", "own", "alike", "alike", "occluded", "several", "shape", "shape")


def swap(number: int) -> Swap:
    """Case `number`: subject number // 8 as KINDS[number % 8] says."""
    learnt, kind = subject(number // 8), KINDS[number % 8]
    noun = learnt.identity.class_name
    if kind in ("alike", "shape"):
        others = [n for n in toybox.CLASSES if n != noun and alike(n, noun) == (kind == "alike")]
        noun = others[number % len(others)] if others else noun
    seed = FIRST_SEED + 500_000 + number
    source = toybox.sample_scene(
        seed,
        identity=toybox.sample_identity(seed, noun, held_out=True),
        subjects=2 if kind == "several" else 1,
        props=1,
        occluded=kind == "occluded",
        held_out=True,
    )
    right = toybox.recast(source, 0, learnt.identity)
    prompt = toybox.plain_caption(source, colour=False)
    several = prompt.split().count(noun) > 1
    return Swap(
        f"{number:02d} {kind}: {noun} to {learnt.name}", kind, learnt, source, right, prompt,
        0 if several else None, truth.changed(source, right),
    )  # fmt: skip


def alike(one: str, other: str) -> bool:
    """Whether two classes can take one another's stances."""
    return toybox.STANCES[one] == toybox.STANCES[other]
