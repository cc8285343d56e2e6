"""Feathered toys: duck and penguin; standing, sitting or flapping."""

from __future__ import annotations

import numpy as np

from understudy.toybox import materials as m
from understudy.toybox.anatomy import Anchors, add_eyes
from understudy.toybox.animals import Measures, measures
from understudy.toybox.clay import Array, Clay, Frame, turn
from understudy.toybox.scene import Identity, Pose


def build(clay: Clay, frame: Frame, identity: Identity, pose: Pose) -> Anchors:
    """A duck or a penguin."""
    s = measures(identity)
    return (_duck if identity.class_name == "duck" else _penguin)(clay, frame, pose, s)


def _wings(clay: Clay, frame: Frame, pose: Pose, root: Array, size: float, girth: float) -> None:
    """Two wings from `root` (the left one): folded down the side, or spread when flapping."""
    for sign, name in ((-1.0, "right"), (1.0, "left")):
        place = root * (sign, 1.0, 1.0)
        if pose.stance == "flapping":
            lift = np.radians(-15.0 + 75.0 * pose.limb)
            reach = np.array([sign * np.cos(lift), np.sin(lift), -0.1])
            tip = place + 1.15 * size * reach
        else:
            tip = place + size * np.array([0.22 * sign * girth, -0.72, -0.50])
        middle = 0.5 * (place + tip)
        clay.bone(frame, place, middle, 0.060, 0.085, m.SECONDARY, smooth=0.04)
        clay.bone(frame, middle, tip, 0.085, 0.030, m.SECONDARY, smooth=0.04)
        clay.point(f"{name} hand", frame, tip)


def _feet(clay: Clay, frame: Frame, x: float, hip: float, z: float, hidden: bool) -> None:
    for sign, name in ((-1.0, "right"), (1.0, "left")):
        foot = np.array([sign * x, 0.035, z + 0.05])
        if not hidden:
            clay.bone(frame, (sign * x, hip, z - 0.05), foot, 0.035, 0.034, m.BEAK)
        clay.ellipsoid(frame, foot + (0.0, 0.0, 0.04), (0.085, 0.035, 0.12), m.BEAK)
        clay.point(f"{name} foot", frame, foot + (0.0, 0.0, 0.05))


def _face(clay: Clay, head: Frame, neck: Frame, s: Measures, r: float, flat: float) -> Anchors:
    clay.ball(head, (0, 0, 0), r, m.PRIMARY, smooth=0.06)
    beak = np.array([0.0, -0.16 * r, 0.92 * r])
    clay.ellipsoid(head, beak, (0.095 * flat, 0.042, 0.14 * s.snout), m.BEAK)
    clay.point("nose", head, beak + (0.0, 0.0, 0.14 * s.snout))
    clay.point("crown", head, (0.0, r, 0.0))
    eyes = ((-0.48 * r, 0.24 * r, 0.76 * r), (0.48 * r, 0.24 * r, 0.76 * r))
    anchors = Anchors(head, r, r, neck, 0.155, eyes, s.eye)
    add_eyes(clay, anchors)
    return anchors


def _duck(clay: Clay, frame: Frame, pose: Pose, s: Measures) -> Anchors:
    g, r = s.girth, 0.92 * s.head
    lift = 0.0 if pose.stance == "sitting" else 0.10 + 0.6 * (s.legs - 0.22)
    body = frame.at((0.0, 0.24 + lift, -0.05), turn(pitch=-8.0))
    clay.ellipsoid(body, (0, 0, 0), (0.25 * g, 0.215 * g, 0.37), m.PRIMARY, smooth=0.08)
    clay.ellipsoid(body, (0, -0.03, 0.17), (0.19 * g, 0.17 * g, 0.22), m.SECONDARY, smooth=0.01)
    tail = (0.0, 0.20 * s.tail, -0.40)
    clay.bone(body, (0, 0.04, -0.25), tail, 0.12, 0.03, m.PRIMARY, smooth=0.06)
    clay.point("tail", body, tail)
    clay.point("belly", body, (0.0, -0.08, 0.38))
    clay.point("back", body, (0.0, 0.21 * g, -0.08))
    _wings(clay, body, pose, np.array([0.21 * g, 0.08, 0.06]), 0.34, g)
    _feet(clay, frame, 0.12, 0.12 + lift, 0.03, hidden=pose.stance == "sitting")
    place = np.array([0.0, 0.24 + lift + 0.24 + 0.55 * r, 0.22])
    clay.bone(frame, (0, 0.28 + lift, 0.14), place, 0.14, 0.12, m.PRIMARY, smooth=0.08)
    head = frame.at(place, turn(yaw=pose.head_yaw, pitch=pose.head_pitch))
    neck = frame.at((0.0, 0.44 + lift, 0.19), turn(pitch=12.0))
    clay.point("neck", neck, (0.0, 0.0, 0.15))
    return _face(clay, head, neck, s, r, flat=1.2)


def _penguin(clay: Clay, frame: Frame, pose: Pose, s: Measures) -> Anchors:
    g, r = s.girth, 0.90 * s.head
    lift = 0.0 if pose.stance == "sitting" else 0.07 + 0.4 * (s.legs - 0.22)
    body = frame.at((0.0, 0.34 + lift, 0.0), turn(pitch=-14.0 if pose.stance == "sitting" else 0))
    clay.ellipsoid(body, (0, 0, 0), (0.255 * g, 0.36, 0.235 * g), m.PRIMARY, smooth=0.08)
    clay.ellipsoid(body, (0, -0.03, 0.07), (0.21 * g, 0.30, 0.205 * g), m.EYE_WHITE, smooth=0.005)
    tail = (0.0, -0.30, -0.16 - 0.14 * s.tail)
    clay.bone(body, (0, -0.22, -0.12), tail, 0.09, 0.03, m.PRIMARY, smooth=0.05)
    clay.point("tail", body, tail)
    clay.point("belly", body, (0.0, -0.03, 0.28 * g))
    clay.point("back", body, (0.0, 0.0, -0.235 * g))
    _wings(clay, body, pose, np.array([0.20 * g, 0.17, 0.02]), 0.36, 1.4 * g)
    forward = 0.18 if pose.stance == "sitting" else 0.06
    _feet(clay, frame, 0.12, 0.10 + lift, forward, hidden=pose.stance == "sitting")
    place = np.array([0.0, 0.58 + lift + 0.55 * r, 0.0])
    head = frame.at(place, turn(yaw=pose.head_yaw, pitch=pose.head_pitch))
    neck = frame.at((0.0, 0.60 + lift, 0.01))
    clay.point("neck", neck, (0.0, 0.0, 0.17))
    return _face(clay, head, neck, s, r, flat=0.8)
