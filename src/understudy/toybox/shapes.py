"""Signed distances to the few shapes that toys are built from, compiled with numba.

A shape is one row of `ROW` float64 numbers (see `clay.py`, which writes them). Formulas: the usual
exact ones for boxes, tori, round cones and cylinders; for ellipsoids the first-order bound
k0 (k0 - 1) / k1 (I. Quilez, "distance functions"). Knows nothing of light.
"""

from __future__ import annotations

import math
from typing import Any

from numba import njit  # pyright: ignore[reportUnknownVariableType, reportMissingTypeStubs]

ELLIPSOID, ROUND_CONE, BOX, TORUS, CYLINDER = range(5)

# Columns of a shape's row.
KIND, CX, ROTATION, PARAMS, SMOOTH, MATERIAL, RADIUS, CARVE = 0, 1, 4, 13, 17, 18, 19, 20
ROW = 21

compiled: Any = njit(cache=True, nogil=True, error_model="numpy")


def called(function: Any, *arguments: Any) -> Any:
    """What a compiled function returns. Ctrl-C during the call is a KeyboardInterrupt here.

    numba does not look at the exception that a signal handler raised while it returns from compiled
    code; Python then raises a SystemError, or several, each the cause of the next.
    """
    try:
        return function(*arguments)
    except SystemError as error:
        cause: BaseException | None = error
        while isinstance(cause, SystemError):
            cause = cause.__cause__
        if isinstance(cause, KeyboardInterrupt):
            raise KeyboardInterrupt from None  # raised again, the old one would be its own context
        raise


@compiled
def ellipsoid(x, y, z, a, b, c):  # type: ignore[no-untyped-def]
    """Distance (bound) to the ellipsoid with radii a, b, c."""
    k0 = math.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2)
    k1 = math.sqrt((x / (a * a)) ** 2 + (y / (b * b)) ** 2 + (z / (c * c)) ** 2)
    if k1 < 1e-9:
        return -min(a, min(b, c))
    return k0 * (k0 - 1.0) / k1


@compiled
def round_cone(x, y, z, low, high, height):  # type: ignore[no-untyped-def]
    """Distance to a cone with round ends: radius `low` at y = 0, `high` at y = height."""
    q = math.sqrt(x * x + z * z)
    b = (low - high) / height
    a = math.sqrt(max(1.0 - b * b, 1e-9))
    k = -b * q + a * y
    if k < 0.0:
        return math.sqrt(q * q + y * y) - low
    if k > a * height:
        return math.sqrt(q * q + (y - height) ** 2) - high
    return q * a + y * b - low


@compiled
def box(x, y, z, a, b, c, rounding):  # type: ignore[no-untyped-def]
    """Distance to a box with half sides a, b, c whose edges are rounded."""
    qx, qy, qz = abs(x) - a + rounding, abs(y) - b + rounding, abs(z) - c + rounding
    outside = math.sqrt(max(qx, 0.0) ** 2 + max(qy, 0.0) ** 2 + max(qz, 0.0) ** 2)
    return outside + min(max(qx, max(qy, qz)), 0.0) - rounding


@compiled
def torus(x, y, z, ring, tube):  # type: ignore[no-untyped-def]
    """Distance to a torus about the y axis."""
    q = math.sqrt(x * x + z * z) - ring
    return math.sqrt(q * q + y * y) - tube


@compiled
def cylinder(x, y, z, low, high, half, rounding):  # type: ignore[no-untyped-def]
    """Distance to a capped, tapering cylinder about y, from radius `low` to `high`."""
    low, high, half = low - rounding, high - rounding, half - rounding
    q = math.sqrt(x * x + z * z)
    rim = low if y < 0.0 else high
    cap_x, cap_y = q - min(q, rim), abs(y) - half
    k2x, k2y = high - low, 2.0 * half
    t = ((high - q) * k2x + (half - y) * k2y) / (k2x * k2x + k2y * k2y)
    t = min(max(t, 0.0), 1.0)
    side_x, side_y = q - high + k2x * t, y - half + k2y * t
    sign = -1.0 if (side_x < 0.0 and cap_y < 0.0) else 1.0
    nearest = min(cap_x * cap_x + cap_y * cap_y, side_x * side_x + side_y * side_y)
    return sign * math.sqrt(nearest) - rounding


@compiled
def local(shapes, i, x, y, z):  # type: ignore[no-untyped-def]
    """The point in the shape's own frame."""
    x, y, z = x - shapes[i, 1], y - shapes[i, 2], z - shapes[i, 3]
    return (
        shapes[i, 4] * x + shapes[i, 5] * y + shapes[i, 6] * z,
        shapes[i, 7] * x + shapes[i, 8] * y + shapes[i, 9] * z,
        shapes[i, 10] * x + shapes[i, 11] * y + shapes[i, 12] * z,
    )


@compiled
def distance_to(shapes, i, x, y, z):  # type: ignore[no-untyped-def]
    """Signed distance from a world point to shape i."""
    x, y, z = local(shapes, i, x, y, z)
    kind = int(shapes[i, KIND])
    a, b, c, d = shapes[i, 13], shapes[i, 14], shapes[i, 15], shapes[i, 16]
    if kind == ELLIPSOID:
        return ellipsoid(x, y, z, a, b, c)
    if kind == ROUND_CONE:
        return round_cone(x, y, z, a, b, c)
    if kind == BOX:
        return box(x, y, z, a, b, c, d)
    if kind == TORUS:
        return torus(x, y, z, a, b)
    return cylinder(x, y, z, a, b, c, d)


@compiled
def nearest(shapes, active, count, x, y, z):  # type: ignore[no-untyped-def]
    """Smoothly joined distance to the active shapes, and which of them is nearest."""
    total, best, which = 1e9, 1e9, -1
    for n in range(count):
        i = active[n]
        d = distance_to(shapes, i, x, y, z)
        k = shapes[i, SMOOTH]
        if shapes[i, CARVE] > 0.5:
            h = max(k - abs(total + d), 0.0) / k
            total = max(total, -d) + h * h * k * 0.25
            continue
        if d < best:
            best, which = d, i
        h = max(k - abs(total - d), 0.0) / k
        total = min(total, d) - h * h * k * 0.25
    return total, which


@compiled
def gather(shapes, first, last, o, d, reach, pad, active):  # type: ignore[no-untyped-def]
    """Indices of the shapes whose bounding sphere, grown by `pad`, the ray comes near."""
    count = 0
    for i in range(first, last):
        x, y, z = shapes[i, 1] - o[0], shapes[i, 2] - o[1], shapes[i, 3] - o[2]
        t = min(max(x * d[0] + y * d[1] + z * d[2], 0.0), reach)
        x, y, z = x - t * d[0], y - t * d[1], z - t * d[2]
        radius = shapes[i, RADIUS] + shapes[i, SMOOTH] + pad
        if x * x + y * y + z * z < radius * radius:
            active[count] = i
            count += 1
    return count
