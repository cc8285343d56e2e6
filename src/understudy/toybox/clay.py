"""Builds a toy from shapes: rows for the ray tracer, materials, and key points.

A `Clay` collects shapes in world coordinates; a `Frame` says where a body part is and how it is
turned. Knows nothing of light or pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from understudy.toybox import shapes

Vector = tuple[float, float, float]
Array = Float[ndarray, "..."]


def turn(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> Float[ndarray, "3 3"]:
    """Rotation by degrees: roll about z, then pitch about x (down positive), then yaw about y."""
    y, p, r = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


@dataclass(frozen=True)
class Frame:
    """A place to build at: world = origin + scale * rotation @ local."""

    origin: Array
    rotation: Array
    scale: float = 1.0

    def __call__(self, point: Vector | Array) -> Array:
        return self.origin + self.scale * self.rotation @ np.asarray(point, dtype=np.float64)

    def at(self, point: Vector | Array, rotation: Array | None = None, scale: float = 1.0) -> Frame:
        """The frame of a part that sits at `point` of this one."""
        turned = self.rotation if rotation is None else self.rotation @ rotation
        return Frame(self(point), turned, self.scale * scale)


@dataclass
class Clay:
    """Shapes (rows of `shapes.ROW`), and named points, of one toy or prop."""

    rows: list[Array] = field(default_factory=list[Array])
    points: dict[str, Array] = field(default_factory=dict[str, Array])

    def _add(
        self,
        kind: int,
        frame: Frame,
        params: tuple[float, ...],
        radius: float,
        material: int,
        smooth: float,
        carve: bool,
    ) -> None:
        row = np.zeros(shapes.ROW)
        row[shapes.KIND] = kind
        row[1:4] = frame.origin
        row[4:13] = frame.rotation.T.ravel()
        row[13 : 13 + len(params)] = np.asarray(params) * frame.scale
        row[shapes.SMOOTH] = max(smooth * frame.scale, 1e-4)
        row[shapes.MATERIAL] = material
        row[shapes.RADIUS] = radius * frame.scale
        row[shapes.CARVE] = float(carve)
        self.rows.append(row)

    def ellipsoid(
        self, frame: Frame, centre: Vector | Array, radii: Vector, material: int,
        *, smooth: float = 0.0, rotation: Array | None = None,
    ) -> None:  # fmt: skip
        """An ellipsoid, or a ball."""
        self._add(
            shapes.ELLIPSOID, frame.at(centre, rotation), radii, max(radii), material, smooth, False
        )

    def ball(
        self, frame: Frame, centre: Vector | Array, radius: float, material: int,
        *, smooth: float = 0.0,
    ) -> None:  # fmt: skip
        """A ball."""
        self.ellipsoid(frame, centre, (radius, radius, radius), material, smooth=smooth)

    def bone(
        self, frame: Frame, start: Vector | Array, end: Vector | Array, low: float, high: float,
        material: int, *, smooth: float = 0.0,
    ) -> None:  # fmt: skip
        """A round cone from `start` (radius low) to `end` (radius high)."""
        a, b = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
        length = float(np.linalg.norm(b - a))
        if length < 1e-6 or abs(low - high) >= length:
            self.ball(frame, a, max(low, high), material, smooth=smooth)
            return
        up = (b - a) / length
        side = np.cross(up, (0.0, 0.0, 1.0) if abs(up[2]) < 0.9 else (1.0, 0.0, 0.0))
        side /= np.linalg.norm(side)
        rotation = np.stack([side, up, np.cross(side, up)], axis=1)
        self._add(
            shapes.ROUND_CONE, frame.at(a, rotation), (low, high, length),
            length + max(low, high), material, smooth, False,
        )  # fmt: skip

    def box(
        self, frame: Frame, centre: Vector | Array, half: Vector, rounding: float, material: int,
        *, smooth: float = 0.0, rotation: Array | None = None,
    ) -> None:  # fmt: skip
        """A rounded box by half sides."""
        radius = float(np.linalg.norm(half))
        self._add(
            shapes.BOX, frame.at(centre, rotation), (*half, rounding), radius, material, smooth,
            False,
        )  # fmt: skip

    def torus(
        self, frame: Frame, centre: Vector | Array, ring: float, tube: float, material: int,
        *, smooth: float = 0.0, rotation: Array | None = None,
    ) -> None:  # fmt: skip
        """A ring about the frame's y axis."""
        self._add(
            shapes.TORUS, frame.at(centre, rotation), (ring, tube), ring + tube, material, smooth,
            False,
        )  # fmt: skip

    def cylinder(
        self, frame: Frame, centre: Vector | Array, low: float, high: float, half: float,
        rounding: float, material: int, *, smooth: float = 0.0, rotation: Array | None = None,
        carve: bool = False,
    ) -> None:  # fmt: skip
        """A tapering cylinder about the frame's y axis; with `carve`, taken away instead."""
        radius = float(np.hypot(max(low, high), half))
        self._add(
            shapes.CYLINDER, frame.at(centre, rotation), (low, high, half, rounding), radius,
            material, smooth, carve,
        )  # fmt: skip

    def point(self, name: str, frame: Frame, place: Vector | Array) -> None:
        """Name a place of the toy."""
        self.points[name] = frame(place)
