"""Four-legged toys: cat, dog, bear, rabbit, pig, elephant; standing, sitting or waving."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from understudy.toybox import materials as m
from understudy.toybox.anatomy import Anchors, add_eyes
from understudy.toybox.clay import Array, Clay, Frame, turn
from understudy.toybox.scene import Identity, Pose


@dataclass(frozen=True)
class Measures:
    """An identity's proportions as lengths."""

    girth: float
    head: float
    ears: float
    snout: float
    legs: float
    limb: float
    eye: float
    tail: float


def measures(identity: Identity) -> Measures:
    """Lengths in units from proportions in [0, 1]."""
    girth, head, ears, snout, legs, limb, eyes, tail = identity.proportions
    return Measures(
        girth=0.85 + 0.35 * girth,
        head=0.235 + 0.065 * head,
        ears=0.8 + 0.5 * ears,
        snout=0.75 + 0.5 * snout,
        legs=0.22 + 0.13 * legs,
        limb=0.068 + 0.036 * limb,
        eye=0.050 + 0.016 * eyes,
        tail=0.7 + 0.7 * tail,
    )


@dataclass(frozen=True)
class Skeleton:
    """Where the parts of a stance are, in the toy's own frame."""

    torso: Array
    torso_radii: tuple[float, float, float]
    torso_pitch: float
    head: Array
    shoulders: Array  # (2, 3): right, left
    hands: Array
    hips: Array
    feet: Array
    tail: Array
    neck: Array


def _both(x: float, y: float, z: float) -> Array:
    """A pair of mirrored places: the toy's right (-x) first."""
    return np.array([[-x, y, z], [x, y, z]])


def skeleton(pose: Pose, s: Measures) -> Skeleton:
    """The stance's places."""
    g, h, leg, f = s.girth, s.head, s.legs, s.limb
    if pose.stance == "standing":
        stride = 0.16 * (pose.limb - 0.5)
        body = leg + 0.15
        hands, feet = _both(0.13 * g, f * 0.8, 0.21), _both(0.13 * g, f * 0.8, -0.21)
        hands[:, 2] += (stride, -stride)
        feet[:, 2] += (-stride, stride)
        return Skeleton(
            torso=np.array([0.0, body, 0.0]), torso_radii=(0.20 * g, 0.19 * g, 0.34),
            torso_pitch=-6.0, head=np.array([0.0, body + 0.18 + 0.55 * h, 0.30]),
            shoulders=_both(0.12 * g, body - 0.02, 0.19), hands=hands,
            hips=_both(0.12 * g, body - 0.03, -0.19), feet=feet,
            tail=np.array([0.0, body + 0.10, -0.31]), neck=np.array([0.0, body + 0.13, 0.26]),
        )  # fmt: skip
    if pose.stance == "sitting":
        torso = np.array([0.0, 0.29, -0.02])
        return Skeleton(
            torso=torso, torso_radii=(0.235 * g, 0.29, 0.215 * g), torso_pitch=-7.0,
            head=np.array([0.0, 0.53 + 0.72 * h, 0.02]),
            shoulders=_both(0.17 * g, 0.44, 0.03), hands=_both(0.25 * g, 0.20, 0.20),
            hips=_both(0.13 * g, 0.11, 0.04), feet=_both(0.19 * g, 0.085, 0.20 + 0.5 * leg),
            tail=np.array([0.0, 0.14, -0.21 * g]), neck=np.array([0.0, 0.54, 0.01]),
        )  # fmt: skip
    lift = 0.30 + 0.40 * pose.limb
    hip = leg + 0.02
    hands = _both(0.31 * g, hip + 0.12, 0.08)
    hands[0] = (-(0.44 - 0.10 * pose.limb) * (0.5 + 0.5 * g), hip + 0.32 + lift * 0.8, 0.08)
    return Skeleton(
        torso=np.array([0.0, hip + 0.20, 0.0]), torso_radii=(0.205 * g, 0.255, 0.18 * g),
        torso_pitch=0.0, head=np.array([0.0, hip + 0.41 + 0.75 * h, 0.02]),
        shoulders=_both(0.16 * g, hip + 0.32, 0.02), hands=hands,
        hips=_both(0.11 * g, hip, 0.0), feet=_both(0.13 * g, 0.07, 0.04),
        tail=np.array([0.0, hip + 0.06, -0.17 * g]), neck=np.array([0.0, hip + 0.42, 0.01]),
    )  # fmt: skip


def build(clay: Clay, frame: Frame, identity: Identity, pose: Pose) -> Anchors:
    """A four-legged toy."""
    s = measures(identity)
    bones = skeleton(pose, s)
    _torso(clay, frame, bones)
    _limbs(clay, frame, bones, s, upright=pose.stance != "standing")
    _tail(clay, frame, bones, s, identity.class_name)
    head = frame.at(bones.head, turn(yaw=pose.head_yaw, pitch=pose.head_pitch))
    clay.bone(frame, bones.torso, bones.head, 0.15, 0.13, m.PRIMARY, smooth=0.06)
    _head(clay, head, s, identity.class_name)
    _ears(clay, head, s, identity.class_name)
    h = s.head
    anchors = Anchors(
        head, h, h, frame.at(bones.neck, turn(pitch=4.0)), 0.185,
        ((-0.42 * h, 0.13 * h, 0.82 * h), (0.42 * h, 0.13 * h, 0.82 * h)), s.eye,
    )  # fmt: skip
    add_eyes(clay, anchors)
    clay.point("crown", head, (0.0, h, 0.0))
    clay.point("neck", frame, bones.neck + np.array([0.0, 0.0, 0.17]))
    return anchors


def _torso(clay: Clay, frame: Frame, bones: Skeleton) -> None:
    radii = bones.torso_radii
    turned = turn(pitch=bones.torso_pitch)
    clay.ellipsoid(frame, bones.torso, radii, m.PRIMARY, smooth=0.08, rotation=turned)
    lying = radii[2] > radii[1]
    front = np.array([0.0, -0.10, 0.16]) if lying else np.array([0.0, -0.02, 0.30 * radii[2]])
    shrunk = (0.72 * radii[0], 0.66 * radii[1], 0.80 * radii[2])
    if lying:
        shrunk = (0.80 * radii[0], 0.60 * radii[1], 0.60 * radii[2])
    clay.ellipsoid(frame, bones.torso + front, shrunk, m.SECONDARY, smooth=0.01, rotation=turned)
    belly = (0.0, -radii[1], 0.05) if lying else (0.0, -0.02, radii[2] * 1.08)
    clay.point("belly", frame, bones.torso + turned @ np.array(belly))
    back = (0.0, radii[1], -0.10) if lying else (0.0, 0.05, -radii[2])
    clay.point("back", frame, bones.torso + turned @ np.array(back))


def _limbs(clay: Clay, frame: Frame, bones: Skeleton, s: Measures, upright: bool) -> None:
    f = s.limb
    for side, name in enumerate(("right", "left")):
        hand, foot = bones.hands[side], bones.feet[side]
        clay.bone(frame, bones.shoulders[side], hand, f, 0.95 * f, m.PRIMARY, smooth=0.04)
        clay.bone(frame, bones.hips[side], foot, 1.25 * f, f, m.PRIMARY, smooth=0.05)
        clay.ball(frame, hand, 1.08 * f, m.SECONDARY, smooth=0.02)
        toe = np.array([0.0, 0.0, 0.05 if upright else 0.03])
        clay.ellipsoid(frame, foot + toe, (1.1 * f, f, 1.45 * f), m.SECONDARY, smooth=0.02)
        clay.point(f"{name} hand", frame, hand)
        clay.point(f"{name} foot", frame, foot + toe)


def _tail(clay: Clay, frame: Frame, bones: Skeleton, s: Measures, kind: str) -> None:
    at, t = frame.at(bones.tail), s.tail
    if kind == "cat":
        places = [(0, 0, 0), (0.06, 0.06 * t, -0.16 * t), (0.15, 0.22 * t, -0.18 * t)]
        places.append((0.16, 0.40 * t, -0.12 * t))
        for a, b in zip(places, places[1:], strict=False):
            clay.bone(at, a, b, 0.045, 0.044, m.PRIMARY, smooth=0.03)
        clay.point("tail", at, places[-1])
    elif kind == "dog":
        tip = (0.05, 0.24 * t, -0.12 * t)
        clay.bone(at, (0, 0, 0), tip, 0.055, 0.03, m.PRIMARY, smooth=0.03)
        clay.point("tail", at, tip)
    elif kind == "elephant":
        tip = (0.03, -0.16 * t, -0.09)
        clay.bone(at, (0, 0, 0), tip, 0.022, 0.02, m.PRIMARY, smooth=0.02)
        clay.ball(at, tip, 0.04, m.SECONDARY)
        clay.point("tail", at, tip)
    else:
        size = {"rabbit": 0.10, "bear": 0.065, "pig": 0.045}[kind] * (0.6 + 0.4 * t)
        material = m.SECONDARY if kind == "rabbit" else m.PRIMARY
        clay.ball(at, (0.0, 0.0, -0.03), size, material, smooth=0.02)
        clay.point("tail", at, (0.0, 0.0, -0.03 - size))


def _head(clay: Clay, head: Frame, s: Measures, kind: str) -> None:
    h, n = s.head, s.snout
    wide = {"cat": 1.08, "bear": 1.06, "pig": 1.05}.get(kind, 1.0)
    clay.ellipsoid(head, (0, 0, 0), (wide * h, 0.94 * h, 0.92 * h), m.PRIMARY, smooth=0.05)
    if kind == "elephant":
        trunk = [(0, -0.12, 0.86), (0, -0.55, 1.22 * n), (0, -1.10, 1.3 * n), (0.1, -1.42, 1.5 * n)]
        places = [h * np.array(place) for place in trunk]
        for k, (a, b) in enumerate(zip(places, places[1:], strict=False)):
            clay.bone(head, a, b, 0.10 - 0.017 * k, 0.084 - 0.017 * k, m.PRIMARY, smooth=0.05)
        for side in (-1.0, 1.0):
            tusk = np.array([0.34 * side, -0.42, 0.80]) * h
            clay.bone(head, tusk, tusk + (0.05 * side, -0.10, 0.13), 0.035, 0.018, m.EYE_WHITE)
        clay.point("nose", head, places[-1])
        return
    if kind == "pig":
        snout = np.array([0.0, -0.22 * h, 0.90 * h + 0.045 * n])
        flat = turn(pitch=90.0)
        clay.cylinder(head, snout, 0.115, 0.105, 0.06 * n, 0.02, m.BLUSH, rotation=flat)
        for side in (-1.0, 1.0):
            clay.ball(head, snout + (0.042 * side, 0.0, 0.058 * n), 0.024, m.BLACK)
        clay.point("nose", head, snout + (0.0, 0.0, 0.06 * n))
        return
    long = {"dog": 1.9, "bear": 1.15, "cat": 0.8, "rabbit": 0.85}[kind] * n
    reach = 0.74 * h + 0.075 * long
    clay.ellipsoid(
        head, (0.0, -0.30 * h, reach - 0.03), (0.115, 0.085, 0.10 * long), m.SECONDARY, smooth=0.03
    )
    nose = np.array([0.0, -0.18 * h, reach + 0.075 * long])
    clay.ellipsoid(head, nose, (0.048, 0.036, 0.034), m.BLUSH if kind == "rabbit" else m.BLACK)
    clay.point("nose", head, nose)


def _ears(clay: Clay, head: Frame, s: Measures, kind: str) -> None:
    h, e = s.head, s.ears
    for sign, name in ((-1.0, "right"), (1.0, "left")):
        if kind == "cat":
            root = np.array([0.56 * sign, 0.62, 0]) * h
            tip = np.array([0.82 * sign, 1.28 * e, 0]) * h
            clay.bone(head, root, tip, 0.115, 0.022, m.PRIMARY, smooth=0.02)
            inner = np.array([0, -0.02, 0.055])
            clay.bone(head, root + inner, tip * 0.93 + inner * 0.7, 0.075, 0.014, m.BLUSH)
        elif kind == "rabbit":
            root = np.array([0.36 * sign, 0.80, 0.0]) * h
            tip = root + np.array([0.12 * sign, 0.40 * e, -0.02])
            clay.bone(head, root, tip, 0.058, 0.070, m.PRIMARY, smooth=0.02)
            inner = np.array([0.0, 0.02, 0.045])
            clay.bone(head, root + inner, tip + inner, 0.028, 0.040, m.BLUSH)
        elif kind == "bear":
            tip = np.array([0.74 * sign, 0.74, 0.0]) * h
            clay.ball(head, tip, 0.098 * e, m.PRIMARY, smooth=0.02)
            clay.ball(head, tip + (0.0, 0.0, 0.05 * e), 0.066 * e, m.SECONDARY)
        elif kind == "dog":
            root = np.array([0.86 * sign, 0.55, 0.05]) * h
            tip = root + np.array([0.10 * sign, -0.25 * e, 0.03])
            clay.bone(head, root, tip, 0.065, 0.095, m.SECONDARY, smooth=0.02)
        elif kind == "pig":
            root = np.array([0.58 * sign, 0.66, 0.15]) * h
            tip = root + np.array([0.10 * sign, 0.09 * e, 0.11])
            clay.bone(head, root, tip, 0.085, 0.028, m.PRIMARY, smooth=0.02)
        else:
            tip = np.array([1.02 * sign * h + 0.10 * sign * e, 0.06 * h, -0.06])
            flap = (0.20 * e, 0.24 * e, 0.045)
            turned = turn(yaw=-24.0 * sign)
            clay.ellipsoid(head, tip, flap, m.PRIMARY, smooth=0.02, rotation=turned)
            inner = (0.145 * e, 0.18 * e, 0.03)
            place = tip + (0.0, 0.0, 0.03)
            clay.ellipsoid(head, place, inner, m.BLUSH, rotation=turned)
        clay.point(f"{name} ear", head, tip)
