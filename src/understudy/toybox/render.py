"""Renders a scene: picture, masks and key points.

`render(scene)` is the camera: it builds the toys, hands their shapes to the tracer, and brings
what comes back into 8-bit sRGB. Same scene, same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from understudy.errors import InputError
from understudy.toybox import animals, birds, materials, places, props, things, tracer
from understudy.toybox import vocabulary as words
from understudy.toybox.anatomy import add_accessory
from understudy.toybox.clay import Clay, Frame, turn
from understudy.toybox.scene import Camera, Figure, Light, Scene
from understudy.toybox.shapes import called

SIZES = (16, 2048)  # smallest and largest side of a picture


Rays = tuple[
    Float[ndarray, "3"], Float[ndarray, "3"], Float[ndarray, "3"], Float[ndarray, "3"]
]  # eye, and forward, right, up scaled to the edges of the picture


@dataclass(frozen=True)
class KeyPoint:
    """A named place of a toy in pixels of the picture (centres at +0.5), and whether it is seen."""

    x: float
    y: float
    visible: bool


@dataclass(frozen=True)
class Rendering:
    """A picture of a scene and what is known of it."""

    picture: UInt8[ndarray, "h w 3"]  # sRGB
    masks: Float[ndarray, "subjects h w"]  # share of each pixel that shows the subject
    keypoints: tuple[dict[str, KeyPoint], ...]  # one dictionary per subject


def render(scene: Scene, size: int | tuple[int, int] = 128, *, over: int = 2) -> Rendering:
    """Draw a scene.

    `size` is the side of a square picture or (height, width), 16 to 2048; `over` squared rays go
    through each pixel. Raises InputError for a size outside the bounds.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if not all(SIZES[0] <= side <= SIZES[1] for side in (height, width)):
        raise InputError(f"size must be {SIZES[0]} to {SIZES[1]} pixels. Got {height}x{width}.")
    built = build(scene, width / height)
    colour, share, depth = called(tracer.trace, *built.camera, width, height, over, *built.tables)
    picture = np.round(255.0 * np.clip(colour, 0.0, 1.0) ** (1 / 2.2)).astype(np.uint8)
    count = len(scene.subjects)
    masks = np.moveaxis(share[:, :, :count], 2, 0).astype(np.float32)
    points = tuple(key_points(built, index, depth) for index in range(count))
    return Rendering(picture, masks, points)


@dataclass(frozen=True)
class Built:
    """A scene as the arrays that the tracer reads, and its toys with their named points.

    tables: shapes (s, 21), groups (g, 7; the subjects' come first), materials (m, 13), light (13,)
    and place (4,), in the tracer's order.
    """

    scene: Scene
    toys: tuple[Clay, ...]
    camera: Rays
    tables: tuple[Float[ndarray, ...], ...]


def build(scene: Scene, aspect: float = 1.0) -> Built:
    """Build the toys and props of a scene for a picture of `aspect` = width / height."""
    toys = [_toy(subject) for subject in scene.subjects]
    tables = (*_assemble(scene, toys), _light(scene), _place(scene))
    return Built(scene, tuple(toys), _rays(scene.camera, aspect), tables)


def influence(
    scene: Scene, subject: int, size: int | tuple[int, int] = 128, *, threshold: int = 3
) -> Bool[ndarray, "h w"]:
    """Pixels that would change were the subject not there: itself, its shadow, what it hides."""
    others = tuple(s for i, s in enumerate(scene.subjects) if i != subject)
    drawn, without = render(scene, size), render(replace(scene, subjects=others), size)
    change = np.abs(drawn.picture.astype(np.int16) - without.picture.astype(np.int16))
    return (change.max(axis=2) > threshold) | (drawn.masks[subject] > 0.5)


def _toy(subject: Figure) -> Clay:
    """The toy's shapes and points in world coordinates."""
    identity, pose = subject.identity, subject.pose
    if pose.stance not in words.STANCES[identity.class_name]:
        wanted = ", ".join(words.STANCES[identity.class_name])
        raise InputError(f"A {identity.class_name} can be {wanted}. Got {pose.stance!r}.")
    clay = Clay()
    frame = Frame(np.array([pose.x, 0.0, pose.z]), turn(yaw=pose.yaw), pose.size)
    if identity.class_name in words.ANIMALS:
        anchors = animals.build(clay, frame, identity, pose)
    elif identity.class_name in words.BIRDS:
        anchors = birds.build(clay, frame, identity, pose)
    else:
        anchors = things.build(clay, frame, identity, pose)
    add_accessory(clay, identity, anchors)
    return clay


def _assemble(
    scene: Scene, clays: list[Clay]
) -> tuple[Float[ndarray, "s 21"], Float[ndarray, "g 7"], Float[ndarray, "m 13"]]:
    """All shapes, groups with their bounding spheres, and materials."""
    pairs = zip(clays, scene.subjects, strict=True)
    built = [(clay, materials.of_identity(s.identity)) for clay, s in pairs]
    built += [(props.build(prop), materials.of_prop(prop.colour)) for prop in scene.props]
    rows: list[Float[ndarray, " columns"]] = []
    groups = np.zeros((len(built), tracer.GROUP_ROW))
    first_material = 0
    for index, (clay, table) in enumerate(built):
        own = np.stack(clay.rows)
        radii = own[:, 19] + own[:, 17]
        low = (own[:, 1:4] - radii[:, None]).min(axis=0)
        high = (own[:, 1:4] + radii[:, None]).max(axis=0)
        centre = (low + high) / 2
        groups[index, :3] = centre
        groups[index, 3] = (np.linalg.norm(own[:, 1:4] - centre, axis=1) + radii).max()
        groups[index, 4:] = len(rows), len(rows) + len(own), first_material
        rows.extend(own)
        first_material += len(table)
    shapes = np.stack(rows) if rows else np.zeros((0, 21))
    colours = np.concatenate([table for _, table in built]) if built else np.zeros((0, 13))
    return shapes, groups, colours


def _rays(camera: Camera, aspect: float) -> Rays:
    eye = np.array([camera.pan * 0.3, camera.height, camera.distance])
    forward = np.array([camera.pan, camera.aim, 0.0]) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    spread = np.tan(np.radians(camera.field / 2))
    return eye, forward, right * spread * aspect, up * spread


def key_points(built: Built, index: int, depth: Float[ndarray, "h w g"]) -> dict[str, KeyPoint]:
    """The named points of subject `index` in pixels, given the distance of each group.

    A point is visible when it is inside the picture, not behind others nor behind the toy itself.
    """
    eye, forward, right, up = built.camera
    height, width = depth.shape[:2]
    scene, clay = built.scene, built.toys[index]
    found: dict[str, KeyPoint] = {}
    class_name = scene.subjects[index].identity.class_name
    for name in words.KEYPOINTS[class_name]:
        ray = clay.points[name] - eye
        along = float(ray @ forward)
        x = (float(ray @ right) / float(right @ right) / along + 1) / 2 * width
        y = (1 - float(ray @ up) / float(up @ up) / along) / 2 * height
        inside = 0 <= x < width and 0 <= y < height
        visible = False
        if inside:
            near = depth[int(y), int(x)]
            distance = float(np.linalg.norm(ray))
            others = np.delete(near, index)
            hidden = bool(len(others)) and others.min() < min(near[index], distance)
            visible = not hidden and bool(distance < near[index] + 0.16)
        found[name] = KeyPoint(x, y, visible)
    return found


_SUN = {  # colour, sky, bounce, softness, height in degrees
    "sunny": ((1.02, 0.94, 0.80), (0.36, 0.41, 0.50), (0.17, 0.15, 0.12), 9.0, 48.0),
    "soft": ((0.52, 0.52, 0.52), (0.58, 0.60, 0.63), (0.27, 0.26, 0.25), 3.2, 62.0),
    "evening": ((1.02, 0.66, 0.36), (0.30, 0.32, 0.44), (0.17, 0.13, 0.11), 7.0, 24.0),
}


def _light(scene: Scene) -> Float[ndarray, " columns"]:
    light: Light = scene.light
    colour, sky, bounce, softness, height = _SUN[light.kind]
    dim = {"night": 0.62, "forest": 0.85, "sunset": 0.85}.get(scene.background.kind, 1.0)
    tone = np.array([0.75, 0.85, 1.15]) if scene.background.kind == "night" else np.ones(3)
    a, h = np.radians(light.azimuth), np.radians(height)
    direction = (np.sin(a) * np.cos(h), np.sin(h), np.cos(a) * np.cos(h))
    parts = (np.array(colour) * dim * tone, np.array(sky) * dim * tone, np.array(bounce) * dim)
    return np.concatenate([direction, *parts, [softness]]).astype(np.float64)


def _place(scene: Scene) -> Float[ndarray, " columns"]:
    kind = places.number(scene.background.kind)
    indoors = float(kind in places.INDOORS)
    return np.array([kind, scene.background.phase, indoors, scene.background.shade])
