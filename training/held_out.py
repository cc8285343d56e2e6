"""Held-out renders: reserved toys, and look-alikes that differ in class or proportions alone.

Scene seeds from 10,000,000 on never occur in training, nor do reserved toys.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from understudy import toybox
from understudy.toybox import vocabulary as words

FIRST = 10_000_000
LOOK_ALIKES = 3  # toys of one family: a toy, other proportions, another class
VIEWS = 4
Scenes = list[tuple[toybox.Scene, int]]  # scenes, and the toy that each shows


def reserved_toys(count: int) -> Scenes:
    """`count` toys of the reserved kinds, each in four scenes, some of them with company."""
    toys = [toybox.sample_identity(n, held_out=True) for n in range(count)]
    return [
        (toybox.sample_scene(FIRST + VIEWS * n + k, identity=toy, held_out=True), n)
        for n, toy in enumerate(toys)
        for k in range(VIEWS)
    ]


def look_alikes(families: int) -> Scenes:
    """`families` times three toys of equal colours, tints and pattern, each in four scenes.

    Group 3 n is a reserved toy, 3 n + 1 has other proportions (drawn anew, as a stranger's are),
    3 n + 2 another class and the same numbers for its proportions. All else is equal.
    """
    found: Scenes = []
    for n in range(families):
        rng = np.random.default_rng([FIRST, n])
        toy = toybox.sample_identity(FIRST + n, held_out=True)
        shape = tuple(float(p) for p in rng.random(len(toy.proportions)))
        others = [name for name in words.CLASSES if name != toy.class_name]
        family = (
            toy,
            replace(toy, proportions=shape),
            replace(toy, class_name=str(rng.choice(others))),
        )
        for member, identity in enumerate(family):
            group = LOOK_ALIKES * n + member
            seeds = range(2 * FIRST + VIEWS * group, 2 * FIRST + VIEWS * (group + 1))
            found += [
                (toybox.sample_scene(s, identity=identity, subjects=1, held_out=True), group)
                for s in seeds
            ]
    return found
