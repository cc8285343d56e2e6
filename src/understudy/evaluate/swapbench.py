"""SwapBench 1: swaps whose right answers are known; the same cases for every method.

ToyCase n is a toy to learn from four photos, a source scene with another toy in it, and the source
re-rendered with the learnt toy in the other's place and pose. Small is cases 0 to 63, full 0 to
511; eight cases share a toy. All toys are reserved ones, in seeds that no training uses. A change
to anything here makes another VERSION: results of two versions are never put together.
"""

from __future__ import annotations

from dataclasses import dataclass

from understudy import toybox
from understudy.errors import InputError
from understudy.toybox import Identity, Scene

NAME, VERSION = "SwapBench", 1
SIZES = {"small": 64, "full": 512}
FIRST_SEED = 50_000_000
PHOTOS = 4
KINDS = {  # name -> what makes it hard
    "single": "a toy of the same class, or of one built alike, alone",
    "multi": "another toy stands beside the one to be swapped",
    "occluded": "something stands before the toy",
    "shape": "a toy of another build: legs to wheels, arms to wings",
    "background": "checks, trees, bricks or the night behind it, and two things beside it",
}
ORDER = ("single", "multi", "occluded", "shape", "background", "single", "shape", "background")
NOUNS = tuple("cat dog bear rabbit robot penguin car elephant pig duck mug rocket".split())
HARD = ("checkered floor", "forest", "street", "night", "rug")


@dataclass(frozen=True)
class ToySubject:
    """A toy to learn: its name, its photos, what it is."""

    number: int
    identity: Identity
    photos: tuple[Scene, ...]

    @property
    def name(self) -> str:
        return f"{self.identity.class_name}{self.number}"


@dataclass(frozen=True)
class ToyCase:
    """What is asked of a method, and the right answer.

    prompt describes the source; noun is the word in it whose place the subject takes.
    """

    number: int
    kind: str
    subject: ToySubject
    source: Scene
    right: Scene
    prompt: str
    noun: str

    @property
    def name(self) -> str:
        return case_name(self.number)


def cases(size: str) -> range:
    """The numbers of the cases of "small" or "full"."""
    if size not in SIZES:
        raise InputError(f"--size must be one of {', '.join(SIZES)}. Got {size!r}.")
    return range(SIZES[size])


def case_name(number: int) -> str:
    """Like "003-shape": the name of a case and of the PNG that answers it."""
    return f"{number:03d}-{ORDER[number % len(ORDER)]}"


def number_of(name: str) -> int:
    """The reverse of `case_name`."""
    return int(name.split("-")[0])


def subject(number: int) -> ToySubject:
    """Toy `number` of the benchmark; the first twelve are of twelve classes."""
    noun = NOUNS[number % len(NOUNS)]
    photos = toybox.subject_photos(FIRST_SEED + number, PHOTOS, class_name=noun, held_out=True)
    return ToySubject(number, photos[0].subjects[0].identity, tuple(photos))


def case(number: int) -> ToyCase:
    """ToyCase `number`."""
    taken, place = subject(number // len(ORDER)), number % len(ORDER)
    kind, seed = ORDER[place], FIRST_SEED + 1_000_000 + 100 * number
    noun = _noun_of_source(taken, place)
    actor = toybox.sample_identity(seed, noun, held_out=True)
    source = _source(kind, seed, actor)
    right = toybox.recast(source, 0, taken.identity)
    prompt = toybox.plain_caption(source, colour=False)
    return ToyCase(number, kind, taken, source, right, prompt, noun)


def _noun_of_source(taken: ToySubject, place: int) -> str:
    """The class of the toy in the source: the subject's own, one built alike, or another build."""
    own = taken.identity.class_name
    if ORDER[place] == "shape":
        others = [n for n in NOUNS if toybox.STANCES[n] != toybox.STANCES[own]]
        return others[(taken.number + 3 * place) % len(others)]
    if ORDER[place] == "single" and place:
        alike = [n for n in NOUNS if toybox.STANCES[n] == toybox.STANCES[own] and n != own]
        return alike[taken.number % len(alike)]
    return own


def _source(kind: str, seed: int, actor: Identity) -> Scene:
    """The source scene of a kind; of two toys, the second is of another class."""
    if kind == "multi":
        for k in range(100):
            scene = toybox.sample_scene(
                seed + k, identity=actor, subjects=2, props=0, occluded=False, held_out=True
            )
            if scene.subjects[1].identity.class_name != actor.class_name:
                return scene
        raise AssertionError(f"no bystander of another class in seeds {seed} to {seed + 99}")
    hard = kind == "background"
    return toybox.sample_scene(
        seed, identity=actor, subjects=1, props=2 if hard else 1, occluded=kind == "occluded",
        background=HARD[seed // 100 % len(HARD)] if hard else None, held_out=True,
    )  # fmt: skip
