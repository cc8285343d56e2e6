"""Toys that are objects with a face: robot, car, mug, rocket."""

from __future__ import annotations

import numpy as np

from understudy.toybox import materials as m
from understudy.toybox.anatomy import Anchors, add_eyes
from understudy.toybox.animals import Measures, measures, skeleton
from understudy.toybox.clay import Clay, Frame, turn
from understudy.toybox.scene import Identity, Pose

Place = tuple[float, float, float]


def build(clay: Clay, frame: Frame, identity: Identity, pose: Pose) -> Anchors:
    """A robot, car, mug or rocket."""
    s = measures(identity)
    return {"robot": _robot, "car": _car, "mug": _mug, "rocket": _rocket}[identity.class_name](
        clay, frame, pose, s
    )


def _eyes(s: Measures, x: float, y: float, z: float) -> tuple[Place, Place]:
    return ((-x, y, z), (x, y, z))


def _robot(clay: Clay, frame: Frame, pose: Pose, s: Measures) -> Anchors:
    upright = Pose(stance="waving" if pose.stance == "standing" else pose.stance, limb=pose.limb)
    bones = skeleton(upright, s)
    h = s.head
    torso, radii = bones.torso, bones.torso_radii
    half = (0.92 * radii[0], 0.80 * radii[1], 0.85 * radii[2])
    clay.box(frame, torso, half, 0.05, m.PRIMARY)
    clay.box(frame, torso + (0, 0.0, half[2]), (0.55 * half[0], 0.5 * half[1], 0.02), 0.01, m.METAL)
    for k, x in enumerate((-0.30, 0.0, 0.30)):
        lamp = torso + (x * half[0], 0.02, half[2] + 0.02)
        clay.ball(frame, lamp, 0.028, (m.SECONDARY, m.LAMP, m.BLUSH)[k])
    hands = bones.hands.copy()
    if pose.stance == "standing":
        hands[0] = hands[1] * (-1.0, 1.0, 1.0)
    for side, name in enumerate(("right", "left")):
        clay.bone(frame, bones.shoulders[side], hands[side], 0.05, 0.049, m.METAL)
        clay.ball(frame, hands[side], 0.085, m.SECONDARY)
        clay.bone(frame, bones.hips[side], bones.feet[side], 0.055, 0.054, m.METAL)
        boot = bones.feet[side] + (0.0, 0.0, 0.04)
        clay.box(frame, boot, (0.085, 0.07, 0.12), 0.035, m.SECONDARY)
        clay.point(f"{name} hand", frame, hands[side])
        clay.point(f"{name} foot", frame, boot)
    clay.point("belly", frame, torso + (0.0, 0.0, half[2] + 0.03))
    clay.point("back", frame, torso - (0.0, 0.0, half[2]))
    clay.point("tail", frame, torso - (0.0, half[1], half[2]))
    clay.cylinder(frame, bones.neck, 0.09, 0.09, 0.09, 0.01, m.METAL)
    head = frame.at(bones.head, turn(yaw=pose.head_yaw, pitch=pose.head_pitch))
    clay.box(head, (0, 0, 0), (1.0 * h, 0.80 * h, 0.78 * h), 0.07, m.PRIMARY)
    clay.box(head, (0, -0.42 * h, 0.78 * h), (0.42 * h, 0.10 * h, 0.02), 0.015, m.BLACK)
    clay.point("nose", head, (0.0, -0.42 * h, 0.80 * h))
    for sign, name in ((-1.0, "right"), (1.0, "left")):
        bolt = np.array([1.06 * h * sign, 0.0, 0.0])
        size = 0.065 * s.ears
        clay.cylinder(head, bolt, size, size, 0.04, 0.01, m.METAL, rotation=turn(roll=90.0))
        clay.point(f"{name} ear", head, bolt * 1.1)
    tip = np.array([0.0, 0.80 * h + 0.17 * s.tail, 0.0])
    clay.bone(head, (0, 0.7 * h, 0), tip, 0.018, 0.0179, m.METAL)
    clay.ball(head, tip, 0.055, m.SECONDARY)
    clay.point("crown", head, (0.0, 0.8 * h, 0.0))
    neck = frame.at(bones.neck - (0.0, 0.02, 0.0))
    clay.point("neck", neck, (0.0, 0.0, 0.12))
    eyes = _eyes(s, 0.42 * h, 0.16 * h, 0.76 * h)
    anchors = Anchors(head, h, 0.82 * h, neck, 0.16, eyes, 1.12 * s.eye)
    add_eyes(clay, anchors)
    return anchors


def _car(clay: Clay, frame: Frame, pose: Pose, s: Measures) -> Anchors:
    g = 0.9 * s.girth
    wheel, long = 0.13 + 0.25 * (s.limb - 0.068) + 0.10 * (s.legs - 0.22), 0.46 + 0.16 * s.tail
    floor = wheel + 0.13
    clay.box(frame, (0, floor, 0), (0.30 * g, 0.135, long), 0.11, m.PRIMARY, smooth=0.04)
    top = np.array([0.0, floor + 0.20, -0.06])
    clay.ellipsoid(frame, top, (0.27 * g, 0.24, 0.30), m.SECONDARY, smooth=0.05)
    pane = top + (0.0, 0.03, 0.10)
    clay.ellipsoid(frame, pane, (0.23 * g, 0.17, 0.215), m.GLASS)
    places = {
        "right foot": (-0.30 * g, 0.6 * long), "left foot": (0.30 * g, 0.6 * long),
        "right hand": (-0.30 * g, -0.6 * long), "left hand": (0.30 * g, -0.6 * long),
    }  # fmt: skip
    for name, (x, z) in places.items():
        lying = turn(roll=90.0)
        clay.cylinder(frame, (x, wheel, z), wheel, wheel, 0.06, 0.03, m.RUBBER, rotation=lying)
        clay.cylinder(
            frame, (1.08 * x, wheel, z), 0.55 * wheel, 0.55 * wheel, 0.055, 0.02, m.METAL,
            rotation=lying,
        )  # fmt: skip
        clay.point(name, frame, (1.15 * x, wheel, z))
    for sign in (-1.0, 1.0):
        clay.ball(frame, (0.19 * g * sign, floor + 0.02, long - 0.02), 0.062, m.LAMP)
        clay.box(frame, (0, floor - 0.1, sign * long), (0.24 * g, 0.03, 0.04), 0.025, m.METAL)
    clay.point("nose", frame, (0.0, floor - 0.08, long + 0.04))
    clay.point("tail", frame, (0.0, floor, -long))
    clay.point("belly", frame, (0.0, floor + 0.13, 0.7 * long))
    clay.point("back", frame, (0.0, floor + 0.13, -0.75 * long))
    clay.point("neck", frame, (0.0, floor + 0.12, 0.25))
    clay.point("crown", frame, top + (0.0, 0.24, 0.0))
    head = frame.at(top)
    neck = frame.at((0.0, floor + 0.13, 0.05))
    eyes = _eyes(s, 0.105, 0.08, 0.245)
    anchors = Anchors(head, 0.25, 0.235, neck, 0.27 * g, eyes, 1.15 * s.eye)
    add_eyes(clay, anchors)
    return anchors


def _mug(clay: Clay, frame: Frame, pose: Pose, s: Measures) -> Anchors:
    r, half = 0.27 * s.girth, 0.27 + 0.30 * (s.legs - 0.22) + 0.12 * (s.head - 0.235)
    body = frame.at((0.0, half + 0.02, 0.0))
    rim = r * (0.88 + 0.25 * (s.snout - 0.75))
    clay.cylinder(body, (0, 0, 0), rim, r, half, 0.04, m.PRIMARY)
    clay.torus(body, (0.0, half - 0.03, 0.0), r - 0.025, 0.035, m.SECONDARY)
    inside = (0.0, 0.35 * half, 0.0)
    clay.cylinder(body, inside, r - 0.06, r - 0.055, 0.75 * half, 0.02, m.SECONDARY, carve=True)
    coffee = (0.0, 0.55 * half, 0.0)
    clay.cylinder(body, coffee, r - 0.05, r - 0.05, 0.03, 0.01, m.RUBBER)
    ring = (0.11 + 0.06 * (s.ears - 0.8)) * (0.7 + 0.3 * s.tail)
    handle = np.array([r + 0.6 * ring, 0.0, 0.0])
    clay.torus(body, handle, ring + 0.03, 0.045, m.SECONDARY, rotation=turn(pitch=90.0))
    clay.point("tail", body, handle + (ring + 0.07, 0.0, 0.0))
    for sign, name in ((-1.0, "right"), (1.0, "left")):
        clay.point(f"{name} hand", body, (sign * r, half - 0.03, 0.0))
        clay.point(f"{name} foot", body, (sign * rim, -half + 0.02, 0.0))
        clay.ball(body, (sign * 0.17, -0.02, 0.90 * r), 0.042, m.BLUSH)
    mouth = (0.0, -0.05, 0.955 * r)
    clay.ellipsoid(body, mouth, (0.045, 0.026, 0.03), m.BLACK)
    clay.point("nose", body, mouth)
    clay.point("belly", body, (0.0, -0.5 * half, r))
    clay.point("back", body, (0.0, 0.0, -r))
    clay.point("neck", body, (0.0, -0.62 * half, 0.95 * r))
    clay.point("crown", body, (0.0, half, 0.0))
    neck = body.at((0.0, -0.62 * half, 0.0))
    anchors = Anchors(body, r, half, neck, 0.92 * r, _eyes(s, 0.10, 0.09, 0.93 * r), 1.1 * s.eye)
    add_eyes(clay, anchors)
    return anchors


def _rocket(clay: Clay, frame: Frame, pose: Pose, s: Measures) -> Anchors:
    r, half = 0.215 * s.girth, 0.44 + 0.16 * (s.legs - 0.22)
    body = frame.at((0.0, half + 0.13, 0.0))
    clay.ellipsoid(body, (0, 0, 0), (r, half, r), m.PRIMARY, smooth=0.03)
    cone = np.array([0.0, 0.62 * half, 0.0])
    clay.bone(body, cone, (0.0, half + 0.07 * s.snout, 0), 0.68 * r, 0.028, m.SECONDARY)
    clay.cylinder(body, (0.0, -0.92 * half, 0.0), 0.62 * r, 0.5 * r, 0.07, 0.02, m.METAL)
    names = ("left foot", "right foot", "tail")
    for angle, name in zip((60.0, -60.0, 180.0), names, strict=True):
        fin = body.at((0.0, -0.62 * half, 0.0), turn(yaw=angle))
        root, tip = (0.0, 0.10, 0.80 * r), (0.0, -0.20 - 0.03, r + 0.16 * s.ears)
        clay.bone(fin, root, tip, 0.055, 0.050, m.SECONDARY, smooth=0.05)
        clay.bone(fin, (0, -0.08, 0.75 * r), tip, 0.05, 0.049, m.SECONDARY, smooth=0.05)
        clay.point(name, fin, tip)
    porthole = np.array([0.0, -0.18 * half, 0.93 * r])
    clay.torus(body, porthole, 0.078, 0.026, m.METAL, rotation=turn(pitch=90.0))
    clay.ball(body, porthole - (0, 0, 0.035), 0.078, m.GLASS)
    clay.point("belly", body, porthole)
    clay.point("back", body, -porthole)
    clay.point("nose", body, (0.0, 0.08 * half, r))
    clay.ellipsoid(body, (0.0, 0.06 * half, 0.985 * r), (0.035, 0.02, 0.02), m.BLACK)
    clay.point("crown", body, (0.0, half, 0.0))
    clay.point("neck", body, (0.0, -0.45 * half, 0.9 * r))
    for sign, name in ((-1.0, "right"), (1.0, "left")):
        clay.point(f"{name} hand", body, (sign * r, 0.0, 0.0))
    neck = body.at((0.0, -0.45 * half, 0.0))
    head = body.at((0.0, 0.22 * half, 0.0))
    eyes = _eyes(s, 0.095, 0.06, 0.86 * r)
    anchors = Anchors(head, 0.72 * r, 0.60 * half, neck, 0.92 * r, eyes, s.eye)
    add_eyes(clay, anchors)
    return anchors
