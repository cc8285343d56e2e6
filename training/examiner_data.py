#!/usr/bin/env python
"""Render the training pictures of the examiner: families of toys that look alike.

    python -m training.examiner_data build/examiner/renders --families 4000

A family is four toys with the same two colours and pattern in `PER_FAMILY` scenes: a toy, the same
toy with other proportions, the same colours on another class, and the same toy with another
accessory. Family n depends on n alone, so a killed run continues where it stopped.

No scene of the recogniser's training set occurs here, and no reserved toy (`held_out=False`).
Most pictures are traced with one ray a pixel, a third of the cost of four; the rest with four.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from understudy import toybox
from understudy.toybox import vocabulary as words
from understudy.toybox.sample import is_reserved
from understudy.toybox.scene import Identity, Scene

SIZE = 128
FIRST_SEED = 4_000_000  # the recogniser's scenes begin at 0, held-out ones at 10,000,000
MEMBERS = 4  # toys of one family; group = MEMBERS * family + member
VIEWS = (4, 3, 3, 2)  # scenes of each member
PER_FAMILY = sum(VIEWS)
FAMILIES_PER_FILE = 20
FINE = 0.15  # share of the pictures that are traced with four rays a pixel
LEAST = 0.15  # mean difference between the proportions of two members


def members(family: int) -> tuple[Identity, ...]:
    """The toys of a family: (toy, other proportions, other class, other accessory)."""
    rng = np.random.default_rng([FIRST_SEED, family])
    toy = toybox.sample_identity(FIRST_SEED + family, held_out=False)
    return toy, _other_shape(toy, rng), _other_class(toy, rng), _other_accessory(toy, rng)


def _other_shape(toy: Identity, rng: np.random.Generator) -> Identity:
    while True:
        drawn = rng.random(len(toy.proportions))
        if np.abs(drawn - toy.proportions).mean() >= LEAST:
            return replace(toy, proportions=tuple(float(p) for p in drawn))


def _other_class(toy: Identity, rng: np.random.Generator) -> Identity:
    while True:
        other = replace(toy, class_name=str(rng.choice(words.CLASSES)))
        if rng.random() < 0.5:  # half of them with other proportions too
            other = _other_shape(other, rng)
        if other.class_name != toy.class_name and not is_reserved(other):
            return other


def _other_accessory(toy: Identity, rng: np.random.Generator) -> Identity:
    """Another accessory; when every other one is reserved, other proportions instead."""
    for accessory in rng.permutation(words.ACCESSORIES):
        other = replace(toy, accessory=str(accessory))
        if accessory != toy.accessory and not is_reserved(other):
            return other
    return _other_shape(toy, rng)


def scenes(family: int) -> list[tuple[Scene, int, int]]:
    """(scene, group, rays a pixel's side) of a family, the views of one toy together."""
    rng = np.random.default_rng([FIRST_SEED, family, 1])
    found: list[tuple[Scene, int, int]] = []
    for member, (toy, views) in enumerate(zip(members(family), VIEWS, strict=True)):
        for _ in range(views):
            seed = FIRST_SEED + PER_FAMILY * family + len(found)
            assert seed < 10_000_000
            scene = toybox.sample_scene(seed, identity=toy, held_out=False)
            over = 2 if rng.random() < FINE else 1
            found.append((scene, MEMBERS * family + member, over))
    return found


def render_file(folder: Path, first: int) -> bool:
    """Render FAMILIES_PER_FILE families from `first` on; False when the file exists already."""
    final = folder / f"{first:06d}.npz"
    if final.exists():
        return False
    drawn = [one for f in range(first, first + FAMILIES_PER_FILE) for one in scenes(f)]
    pictures = np.zeros((len(drawn), SIZE, SIZE, 3), np.uint8)
    masks = np.zeros((len(drawn), SIZE, SIZE), np.uint8)
    points = np.full((len(drawn), len(toybox.POINTS), 3), np.nan, np.float32)
    for k, (scene, _, over) in enumerate(drawn):
        one = toybox.render(scene, SIZE, over=over)
        pictures[k], masks[k] = one.picture, np.round(255 * one.masks[0])
        for name, point in one.keypoints[0].items():
            points[k, toybox.POINTS.index(name)] = point.x, point.y, point.visible
    lines = [json.dumps({"group": g, "scene": json.loads(s.to_json())}) for s, g, _ in drawn]
    partial = final.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, pictures=pictures, masks=masks, points=points, scenes=np.array(lines))
    partial.replace(final)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument("--families", type=int, default=4000)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, options.families, FAMILIES_PER_FILE):
        if render_file(options.folder, first):
            print(f"{first + FAMILIES_PER_FILE} of {options.families} families", flush=True)


if __name__ == "__main__":
    main()
