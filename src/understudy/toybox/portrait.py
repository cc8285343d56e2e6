"""Renders a `Face`: picture and key points, by the shapes and the tracer of the toy world.

The camera looks upwards, so that nothing but the backdrop is behind the head. Lengths are in
radii of the head. Same face, same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from understudy.errors import InputError
from understudy.toybox import closeup
from understudy.toybox import materials as m
from understudy.toybox.clay import Array, Clay, Frame, turn
from understudy.toybox.faces import Face
from understudy.toybox.render import SIZES, KeyPoint
from understudy.toybox.scene import Identity
from understudy.toybox.shapes import called
from understudy.toybox.vocabulary import COLOURS

PALETTE = ("black", "brown", "red", "orange", "yellow", "green", "blue", "purple", "pink",
           "white", "grey")  # fmt: skip
RADIUS = 0.27  # of the head, in the world's units
DISTANCE, FIELD, UPWARDS = 1.60, 30.0, 24.0  # of the camera; degrees
CENTRE = (0.0, -0.17, 0.0)  # of the head, from the middle of the picture
LARGE = 0.19  # radius of a shape, in the head's, from which it throws shadows
DARK = m.RUBBER  # the material of patches and stripes

_SIDES = (("right", -1.0), ("left", 1.0))
_OF_AN_EYE = ("inner", "outer", "top", "bottom", "pupil")
FACE_POINTS = (
    "nose", "nose left", "nose right", "mouth left", "mouth right", "upper lip", "lower lip",
    "chin", "crown", "left cheek", "right cheek",
    *(f"{side} eye {part}" for side, _ in _SIDES for part in _OF_AN_EYE),
    *(f"{side} ear {part}" for side, _ in _SIDES for part in ("inner", "outer", "middle", "tip")),
)  # fmt: skip
"""Names of a face's key points; left and right are the toy's own, as elsewhere."""


@dataclass(frozen=True)
class Portrait:
    """A picture of a face and what is known of it."""

    picture: UInt8[ndarray, "h w 3"]  # sRGB
    mask: Float[ndarray, "h w"]  # share of each pixel that shows the toy
    keypoints: dict[str, KeyPoint]


def portrait(face: Face, size: int = 128, *, over: int = 2) -> Portrait:
    """Draw a face, `size` pixels square, with `over` squared rays through each pixel.

    Raises InputError for a size outside the world's bounds.
    """
    if not SIZES[0] <= size <= SIZES[1]:
        raise InputError(f"size must be {SIZES[0]} to {SIZES[1]} pixels. Got {size}.")
    clay, camera = _clay(face), _camera()
    table = np.stack(clay.rows)
    large = table[table[:, 19] > LARGE * RADIUS]
    spread = np.tan(np.radians(FIELD / 2))
    right, up, back = camera.rotation.T
    colour, share, depth = called(
        closeup.trace, camera.origin, -back, right * spread, up * spread, size, over,
        table, _group(table, camera)[0], large, _group(large, camera),
        _materials(face), _light(face, camera),
    )  # fmt: skip
    colour = colour + (1.0 - share[:, :, None]) * _backdrop(face, size)
    picture = np.round(255.0 * np.clip(colour, 0.0, 1.0) ** (1 / 2.2)).astype(np.uint8)
    points = {name: _seen(clay.points[name], camera, depth) for name in FACE_POINTS}
    return Portrait(picture, share.astype(np.float32), points)


def _group(table: Float[ndarray, "s 21"], camera: Frame) -> Float[ndarray, "1 7"]:
    """The tracer's row for all shapes of a table: their bounding sphere."""
    centre = camera((0.0, 0.0, -DISTANCE))
    reach = np.linalg.norm(table[:, 1:4] - centre, axis=1) + table[:, 19] + table[:, 17]
    return np.array([[*centre, reach.max(), 0, len(table), 0]])


def _camera() -> Frame:
    """Where the camera is; its z points backwards."""
    return Frame(np.array([0.0, 1.5, DISTANCE]), turn(pitch=-UPWARDS))


def _seen(place: Array, camera: Frame, depth: Float[ndarray, "h w"]) -> KeyPoint:
    """A point in pixels; seen when inside and not behind the toy's own surface."""
    x, y, z = camera.rotation.T @ (place - camera.origin)
    side, spread = len(depth), -z * np.tan(np.radians(FIELD / 2))
    column, row = (x / spread + 1) / 2 * side, (1 - y / spread) / 2 * side
    inside = 0 <= column < side and 0 <= row < side
    distance = float(np.linalg.norm(place - camera.origin))
    visible = bool(inside and distance < depth[int(row), int(column)] + 0.05)
    return KeyPoint(float(column), float(row), visible)


# --- shapes -------------------------------------------------------------------------------------


def _clay(face: Face) -> Clay:
    clay, camera = Clay(), _camera()
    middle = camera.at((0.0, 0.0, -DISTANCE), scale=RADIUS)
    turned = turn(
        yaw=66.0 * (face.turn - 0.5), pitch=34.0 * (face.nod - 0.5), roll=36.0 * (face.tilt - 0.5)
    )
    head = middle.at(CENTRE, turned)
    wide = 0.98 + 0.22 * face.head_width
    clay.ellipsoid(head, (0, 0, 0), (wide, 0.94, 0.92), m.PRIMARY, smooth=0.18)
    clay.ellipsoid(middle, (0, -1.85, -0.25), (1.0, 0.8, 0.7), m.PRIMARY)
    clay.torus(middle, (0, -1.20, -0.12), 0.62, 0.21, m.ACCESSORY, rotation=turn(pitch=8.0))
    clay.point("crown", head, (0, 0.88, 0.28))
    _ears(clay, head, face, wide)
    _snout(clay, head, face)
    _eyes(clay, head, face)
    _marks(clay, head, face, wide)
    return clay


def _on(x: float, y: float, wide: float) -> Array:
    """The place of the head's front at x, y."""
    z = 0.92 * np.sqrt(max(1.0 - (x / wide) ** 2 - (y / 0.94) ** 2, 0.0))
    return np.array([x, y, z])


def _ears(clay: Clay, head: Frame, face: Face, wide: float) -> None:
    """Three joints each, bent outwards by the fold."""
    length, width = 0.55 + 0.80 * face.ear_length, 0.15 + 0.17 * face.ear_width
    for side, sign in _SIDES:
        angle = 22.0 + 30.0 * face.ear_spread
        a = np.radians(angle)
        here = np.array([sign * wide * np.sin(a) * 0.92, 0.90 * np.cos(a), -0.05])
        across = np.array([np.cos(a), -sign * np.sin(a), 0.0]) * width
        root = here + (0.12 * sign * np.sin(a), 0.12 * np.cos(a), 0.9 * width)
        clay.point(f"{side} ear inner", head, root - sign * across)
        clay.point(f"{side} ear outer", head, root + sign * across)
        bend, radii = 0.55 * angle - 12.0, (1.0, 1.12, 0.95, 0.62)
        for k in range(3):
            b = np.radians(bend)
            ahead = np.array([sign * np.sin(b), np.cos(b), 0.10 + 0.16 * face.ear_fold])
            there = here + ahead * length / 3
            low, high = radii[k] * width, radii[k + 1] * width
            clay.bone(head, here, there, low, high, m.PRIMARY, smooth=0.10)
            inner = np.array([0.0, 0.0, 0.62 * width])
            clay.bone(head, here + inner, there + inner, 0.58 * low, 0.58 * high, m.BLUSH)
            if k == 1:
                clay.point(f"{side} ear middle", head, there + (0.0, 0.0, width))
            if k == 2:
                tip = there + 0.4 * width * ahead + (0.0, 0.0, 0.4 * width)
                clay.point(f"{side} ear tip", head, tip)
            here, bend = there, bend + 66.0 * face.ear_fold


def _snout(clay: Clay, head: Frame, face: Face) -> None:
    """Muzzle, jaw, nose, and a mouth that opens downwards."""
    long, opened = 0.26 + 0.30 * face.snout_length, max(face.mouth - 0.08, 0.0) / 0.92
    rx, ry, cy, cz = 0.40 + 0.20 * face.snout_width, 0.30, -0.34, 0.66

    def front(x: float, y: float) -> Array:
        left = 1.0 - (x / rx) ** 2 - ((y - cy) / ry) ** 2
        return np.array([x, y, cz + long * np.sqrt(max(left, 0.05))])

    clay.ellipsoid(head, (0, cy, cz), (rx, ry, long), m.SECONDARY, smooth=0.08)
    drop = 0.20 * opened
    jaw = np.array([0.0, -0.53 - drop, 0.58])
    clay.ellipsoid(head, jaw, (0.66 * rx, 0.17, 0.16 + 0.62 * long), m.SECONDARY, smooth=0.06)
    clay.point("chin", head, jaw + (0, -0.13, 0.10 + 0.3 * long))
    nose = front(0.0, cy + 0.17)
    clay.ellipsoid(head, nose, (0.155, 0.105, 0.10), m.BLACK)
    clay.point("nose", head, nose + (0, 0, 0.10))
    clay.point("nose left", head, nose + (0.14, 0, 0.03))
    clay.point("nose right", head, nose + (-0.14, 0, 0.03))
    # The upper lip: from under the nose down, and out to the corners.
    half, level, lift = 0.70 * rx, cy - 0.055, 0.26 * (face.smile - 0.35)
    path = ((0.0, level + 0.01), (0.42 * half, level - 0.05 + 0.15 * lift), (half, level + lift))
    places = [front(x, y) for x, y in path]
    mirror = np.array([-1.0, 1.0, 1.0])
    for a, b in zip(places, places[1:], strict=False):
        clay.bone(head, a, b, 0.030, 0.028, m.BLACK)
        clay.bone(head, a * mirror, b * mirror, 0.030, 0.028, m.BLACK)
    clay.bone(head, nose, places[0], 0.026, 0.025, m.BLACK)
    lip = level - 0.03
    if opened > 0:  # a dark hollow that grows out of the line, with the tongue in it
        tall = 0.5 * (drop + 0.10 * opened)
        hollow = front(0.0, lip - 0.6 * tall) * (1, 0, 1) + (0, lip - tall, -0.05 - 0.05 * opened)
        radii = (half * (0.45 + 0.30 * opened), tall + 0.02, 0.10)
        clay.ellipsoid(head, hollow, radii, m.BLACK, rotation=turn(pitch=14.0))
        tongue = hollow + (0, -0.42 * tall, 0.035)
        clay.ellipsoid(
            head, tongue, (0.62 * radii[0], 0.50 * radii[1], 0.085), m.BLUSH,
            rotation=turn(pitch=14.0),
        )  # fmt: skip
    clay.point("upper lip", head, places[0])
    clay.point("lower lip", head, front(0, lip) + (0, -drop - 0.10 * opened, -0.06 * opened))
    clay.point("mouth left", head, places[-1])
    clay.point("mouth right", head, places[-1] * mirror)


def _eyes(clay: Clay, head: Frame, face: Face) -> None:
    """White, iris, pupil, sparkle, and a lid that comes down with its lashes."""
    r = 0.195 + 0.075 * face.eye_size
    for side, sign in _SIDES:
        place = np.array([sign * 0.40, 0.17, 0.76])
        aside = 10.0 * sign + 50.0 * (face.gaze_x - 0.5)
        gaze = turn(yaw=aside, pitch=36.0 * (face.gaze_y - 0.5)) @ (0.0, 0.0, 1.0)
        clay.ball(head, place, r, m.EYE_WHITE)
        clay.ball(head, place + 0.22 * r * gaze, 0.84 * r, m.GLASS)
        clay.ball(head, place + 0.57 * r * gaze, 0.52 * r, m.BLACK)
        clay.ball(head, place + r * np.array([-0.22, 0.34, 0.97]), 0.15 * r, m.SPARKLE)
        # The lid is a larger ball that meets the eye in a circle, at `level` along `tipped`.
        opened = 1 - (1 - (face.left_eye if side == "left" else face.right_eye)) ** 1.6
        angle, level = 45.0 - 95.0 * opened, -0.66 + 1.28 * opened
        tipped = turn(pitch=angle)
        ahead = tipped @ (0.0, 1.0, 0.0)
        away = level + np.sqrt(level**2 + 1.13**2 - 1.0)
        clay.ball(head, place + away * r * ahead, 1.13 * r, m.PRIMARY)
        ring = np.sqrt(1.0 - level**2)
        centre = place + level * r * ahead
        clay.torus(head, centre, 1.04 * ring * r, 0.075 * r, m.BLACK, rotation=tipped)
        edge = centre + ring * r * (tipped @ (0.0, 0.0, 1.0))
        clay.point(f"{side} eye top", head, edge)
        clay.point(f"{side} eye bottom", head, place + r * np.array([0, -0.80, 0.60]))
        clay.point(f"{side} eye inner", head, place + r * np.array([-sign * 0.85, 0, 0.52]))
        clay.point(f"{side} eye outer", head, place + r * np.array([sign * 0.85, 0, 0.52]))
        clay.point(f"{side} eye pupil", head, place + r * gaze)


def _marks(clay: Clay, head: Frame, face: Face, wide: float) -> None:
    """Blushing cheeks, the patch about an eye, the stripes of the forehead."""
    for side, sign in _SIDES:
        cheek = _on(0.66 * sign, -0.26, wide)
        _spot(clay, head, cheek, 0.155, 0.115, m.BLUSH)
        clay.point(f"{side} cheek", head, cheek)
    patch = max(face.patch - 0.4, 0.0) / 0.6
    if patch > 0:
        _spot(clay, head, _on(0.42, 0.20, wide), 0.22 + 0.24 * patch, 0.24 + 0.28 * patch, DARK)
    stripes = max(face.stripes - 0.4, 0.0) / 0.6
    for x in (-0.26, 0.0, 0.26) if stripes > 0 else ():
        high = 0.66 - 0.5 * abs(x)
        _spot(clay, head, _on(x, high, wide), 0.02 + 0.075 * stripes, 0.10 + 0.16 * stripes, DARK)


def _spot(clay: Clay, head: Frame, at: Array, across: float, tall: float, material: int) -> None:
    """A flat ellipsoid that lies on the head."""
    x, y, z = at / np.linalg.norm(at)
    turned = turn(yaw=np.degrees(np.arctan2(x, z)), pitch=-np.degrees(np.arcsin(y)))
    thick = 0.022 + 0.55 * max(across, tall) ** 2
    clay.ellipsoid(
        head, 0.995 * at - 0.3 * thick * at, (across, tall, thick), material, rotation=turned
    )


# --- colours and light --------------------------------------------------------------------------


def _coloured(share: float) -> Float[ndarray, " xyz"]:
    """Linear colour at a place of the palette."""
    stops = np.array([m.linear(COLOURS[name]) for name in PALETTE])
    at = np.linspace(0, 1, len(PALETTE))
    return np.array([np.interp(share, at, stops[:, k]) for k in range(3)])


def _materials(face: Face) -> m.Table:
    """The materials of the face, by the numbers of all toys'."""
    table = m.of_identity(Identity(class_name="bear"))
    light = face.fur_light
    fur = _coloured(face.fur)
    fur = fur * min(0.55 + 0.9 * light, 1.0)
    fur = fur + (1.0 - fur) * (0.06 + 0.5 * max(light - 0.5, 0.0))
    pale = fur + (np.array([0.92, 0.86, 0.74]) - fur) * (0.30 + 0.6 * face.muzzle)
    colours = {
        m.PRIMARY: fur, m.SECONDARY: pale, DARK: 0.16 * fur + 0.012, m.GLASS: _coloured(face.eyes),
        m.ACCESSORY: _coloured(face.scarf),
    }  # fmt: skip
    for material, colour in colours.items():
        table[material, 0:3] = table[material, 3:6] = colour
    return table


def _light(face: Face, camera: Frame) -> Float[ndarray, " columns"]:
    """The tracer's light, from beside the camera."""
    azimuth, height = np.radians(130.0 * (face.light_from - 0.5)), np.radians(38.0)
    ray = (np.sin(azimuth) * np.cos(height), np.sin(height), np.cos(azimuth) * np.cos(height))
    grey, warm = np.array([0.62, 0.64, 0.68]), np.array([1.08, 0.80, 0.52])
    sun = grey + (warm - grey) * face.light_warm
    sky = np.array([0.50, 0.53, 0.58]) - 0.14 * face.light_warm
    return np.array([*(camera.rotation @ ray), *sun, *sky, 0.22, 0.20, 0.18, 6.0])


def _backdrop(face: Face, size: int) -> Float[ndarray, "size size 3"]:
    """A wall of one colour, lighter in the middle."""
    across = (np.arange(size) + 0.5) / size * 2 - 1
    glow = np.exp(-0.9 * (across[:, None] ** 2 + across[None, :] ** 2))
    colour = _coloured(0.15 + 0.85 * face.backdrop)
    colour = colour + (1.0 - colour) * (0.10 + 0.55 * face.backdrop_light)
    return colour * (0.45 + 0.50 * glow)[:, :, None]
