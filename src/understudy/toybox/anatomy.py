"""What every toy has: a face, and the accessories that fit it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from understudy.toybox import materials as m
from understudy.toybox.clay import Clay, Frame, turn
from understudy.toybox.scene import Identity


@dataclass(frozen=True)
class Anchors:
    """Where things can be put on a toy."""

    head: Frame  # origin in the middle of the head, z forward, in the toy's scale
    radius: float  # of the head
    crown: float  # height of the top above the head's middle
    neck: Frame
    neck_radius: float
    eyes: tuple[tuple[float, float, float], tuple[float, float, float]]  # in the head's frame
    eye_radius: float


def add_eyes(clay: Clay, anchors: Anchors) -> None:
    """Two eyes that read as eyes: white, pupil, sparkle. Names their key points."""
    for name, eye in zip(("right eye", "left eye"), anchors.eyes, strict=True):
        place, r = np.asarray(eye), anchors.eye_radius
        out = place / np.linalg.norm(place) * 0.55 + np.array([0.0, 0.0, 0.45])
        out /= np.linalg.norm(out)
        clay.ball(anchors.head, place, r, m.EYE_WHITE)
        clay.ball(anchors.head, place + 0.42 * r * out, 0.74 * r, m.BLACK)
        sparkle = place + 1.02 * r * out + r * np.array([0.22, 0.30, 0.0])
        clay.ball(anchors.head, sparkle, 0.24 * r, m.SPARKLE)
        clay.point(name, anchors.head, place + r * out)


def add_accessory(clay: Clay, identity: Identity, anchors: Anchors) -> None:
    """Put the identity's accessory on."""
    build = {
        "hat": _hat, "crown": _crown, "scarf": _scarf, "bow tie": _bow_tie, "glasses": _glasses,
    }.get(identity.accessory)  # fmt: skip
    if build is not None:
        build(clay, anchors)


def _hat(clay: Clay, a: Anchors) -> None:
    top, r = a.head.at((0.0, a.crown * 0.90, 0.0), turn(pitch=-6.0)), a.radius
    clay.cylinder(top, (0.0, 0.02, 0.0), 0.95 * r, 0.95 * r, 0.030, 0.015, m.ACCESSORY)
    clay.cylinder(top, (0.0, 0.36 * r, 0.0), 0.60 * r, 0.66 * r, 0.36 * r, 0.02, m.ACCESSORY)
    clay.cylinder(top, (0.0, 0.13 * r, 0.0), 0.625 * r, 0.635 * r, 0.06 * r, 0.005, m.EYE_WHITE)


def _crown(clay: Clay, a: Anchors) -> None:
    top, r = a.head.at((0.0, a.crown * 0.93, 0.0)), 0.58 * a.radius
    clay.torus(top, (0.0, 0.02, 0.0), r, 0.055, m.ACCESSORY)
    for k in range(6):
        angle = np.radians(60.0 * k + 30.0)
        x, z = r * np.sin(angle), r * np.cos(angle)
        height = 0.62 * a.radius
        clay.bone(top, (x, 0.03, z), (1.12 * x, height, 1.12 * z), 0.062, 0.022, m.ACCESSORY)
        clay.ball(top, (1.12 * x, height + 0.03, 1.12 * z), 0.036, m.LAMP)


def _scarf(clay: Clay, a: Anchors) -> None:
    r = a.neck_radius
    clay.torus(a.neck, (0.0, 0.0, 0.0), r, 0.068, m.ACCESSORY, rotation=turn(pitch=8.0))
    start = (0.35 * r, -0.02, 0.98 * r)
    end = (0.55 * r, -0.27, 1.12 * r)
    clay.bone(a.neck, start, end, 0.055, 0.070, m.ACCESSORY, smooth=0.03)


def _bow_tie(clay: Clay, a: Anchors) -> None:
    front = a.neck.at((0.0, -0.04, a.neck_radius + 0.05))
    for side in (-1.0, 1.0):
        clay.bone(front, (0.03 * side, 0, 0), (0.15 * side, 0, 0), 0.030, 0.075, m.ACCESSORY)
    clay.ball(front, (0.0, 0.0, 0.03), 0.045, m.ACCESSORY)


def _glasses(clay: Clay, a: Anchors) -> None:
    ring, lift = 1.62 * a.eye_radius, 1.0 * a.eye_radius
    centres: list[tuple[float, float, float]] = []
    for x, y, z in a.eyes:
        centres.append((1.06 * x, y, z + lift))
        clay.torus(a.head, centres[-1], ring, 0.021, m.ACCESSORY, rotation=turn(pitch=90.0))
    (x0, y0, z0), (x1, y1, z1) = centres
    inner = (x0 + ring, y0, z0 + 0.01), (x1 - ring, y1, z1 + 0.01)
    if inner[0][0] < inner[1][0]:
        clay.bone(a.head, *inner, 0.018, 0.0179, m.ACCESSORY)
    for sign, (x, y, z) in zip((-1.0, 1.0), centres, strict=True):
        temple = (sign * 0.98 * a.radius, y, 0.0)
        clay.bone(a.head, (x + sign * ring, y, z), temple, 0.016, 0.0159, m.ACCESSORY)
