"""Captions of scenes, as a person would write them."""

from __future__ import annotations

import numpy as np

from understudy.toybox import vocabulary as words
from understudy.toybox.scene import Identity, Scene


def article(phrase: str) -> str:
    """`phrase` with "a" or "an" before it."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def noun_phrase(
    identity: Identity, *, colour: bool = True, pattern: bool = True, accessory: bool = True
) -> str:
    """For instance "spotted pink cat with a red hat" (no article)."""
    parts = [identity.class_name]
    if colour:
        parts.insert(0, identity.primary)
    if pattern and identity.pattern != "plain":
        parts.insert(0, identity.pattern)
    if accessory and identity.accessory != "none":
        worn = f"{identity.accessory_colour} {identity.accessory}"
        parts.append(f"with {worn if worn.endswith('glasses') else article(worn)}")
    return " ".join(parts)


def plain_caption(scene: Scene, *, colour: bool = True) -> str:
    """The caption that names just class, stance, background, and the main colour if asked."""
    names = [
        " ".join((article(noun_phrase(s.identity, colour=colour, pattern=False, accessory=False)),
                  *_doing(s.pose.stance)))
        for s in scene.subjects
    ]  # fmt: skip
    return f"a photo of {' and '.join(names)} {words.BACKGROUNDS[scene.background.kind]}"


def _doing(stance: str) -> tuple[str, ...]:
    return () if stance == "parked" else (stance,)


def caption(scene: Scene, seed: int) -> str:
    """One of many captions of a scene: some name colours, stance, place, light, props; some not."""
    rng = np.random.default_rng([seed, 4])
    chance = rng.random(8)
    names: list[str] = []
    for subject in scene.subjects:
        identity = subject.identity
        phrase = article(
            noun_phrase(
                identity,
                colour=bool(chance[0] < 0.75),
                pattern=bool(chance[1] < 0.7),
                accessory=bool(chance[2] < 0.6),
            )
        )
        if chance[3] < 0.55:
            phrase = " ".join((phrase, *_doing(subject.pose.stance)))
        names.append(phrase)
    parts = [" and ".join(names)]
    if chance[4] < 0.88:
        parts.append(words.BACKGROUNDS[scene.background.kind])
    if scene.props and chance[5] < 0.6:
        prop = scene.props[0]
        parts.append(f"next to {article(f'{prop.colour} {prop.kind}')}")
    if chance[6] < 0.15:
        parts.append({"sunny": "in sunlight"}.get(scene.light.kind, f"in {scene.light.kind} light"))
    lead = "" if chance[7] < 0.25 else "a photo of "
    return lead + " ".join(parts)
