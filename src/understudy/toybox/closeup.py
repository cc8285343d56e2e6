"""The ray tracer for one object that fills the picture: more rays at its edges; numba.

The same hits, light and shadows as `tracer`, with two savings: only pixels at an edge take more
than one ray, and only `casters`, the larger shapes, throw shadows. Knows nothing of faces.
"""

from __future__ import annotations

import math

import numpy as np

from understudy.toybox import materials as mat
from understudy.toybox import shapes
from understudy.toybox.shapes import compiled
from understudy.toybox.tracer import (
    MOST,
    lit,
    march,
    normal_at,
    open_sky_at,
    shadow_at,
    within_ball,
)

EDGE = 0.05  # difference of two neighbours, in linear light, that asks for more rays


@compiled
def _ray(forward, right, up, a, b):  # type: ignore[no-untyped-def]
    x = forward[0] + a * right[0] + b * up[0]
    y = forward[1] + a * right[1] + b * up[1]
    z = forward[2] + a * right[2] + b * up[2]
    length = math.sqrt(x * x + y * y + z * z)
    return x / length, y / length, z / length


@compiled
def _hit(o, d, table, group, active):  # type: ignore[no-untyped-def]
    """Distance along the ray, or -1, and the shape."""
    start, end = within_ball(group, o, d)
    if start > end:
        return -1.0, -1
    count = shapes.gather(table, 0, table.shape[0], o, d, end, 0.0, active)
    if count == 0:
        return -1.0, -1
    return march(table, active, count, o, d, start, end)


@compiled
def _surface_at(o, d, t, table, active):  # type: ignore[no-untyped-def]
    place = (o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2])
    count = shapes.gather(table, 0, table.shape[0], place, d, 0.0, 0.02, active)
    n = normal_at(table, active, count, place[0], place[1], place[2])
    return place, n


@compiled
def _reached(place, n, casters, groups, light, active):  # type: ignore[no-untyped-def]
    """Shares of the light and of the sky that reach a place."""
    start = (place[0] + 0.012 * n[0], place[1] + 0.012 * n[1], place[2] + 0.012 * n[2])
    facing = n[0] * light[0] + n[1] * light[1] + n[2] * light[2]
    shadow = shadow_at(casters, groups, start, light, active) if facing > 0.0 else 0.0
    open_sky = open_sky_at(casters, groups, place[0], place[1], place[2], n[0], n[1], n[2], active)
    return shadow, open_sky


@compiled
def _coloured(row, n, d, light, shadow, open_sky):  # type: ignore[no-untyped-def]
    colour = (row[0], row[1], row[2])
    red, green, blue = lit(colour, n, d, light, shadow, open_sky, row[mat.GLOSS])
    glow = row[mat.GLOW]
    return (
        min(max(red + glow * colour[0], 0.0), 1.0),
        min(max(green + glow * colour[1], 0.0), 1.0),
        min(max(blue + glow * colour[2], 0.0), 1.0),
    )


@compiled
def _at_edge(colour, share, j, i):  # type: ignore[no-untyped-def]
    """Whether a pixel differs from one of its four neighbours."""
    size = share.shape[0]
    for k in range(4):
        v, u = j + (k == 0) - (k == 1), i + (k == 2) - (k == 3)
        if v < 0 or u < 0 or v >= size or u >= size:
            continue
        if share[v, u] != share[j, i]:
            return True
        for c in range(3):
            if abs(colour[v, u, c] - colour[j, i, c]) > EDGE:
                return True
    return False


@compiled
def trace(eye, forward, right, up, size, over, table, group, casters, groups, materials, light):  # type: ignore[no-untyped-def]
    """Linear colour on black (size, size, 3), the thing's share and its depth, (size, size).

    table: all shapes, inside the bounding sphere `group`. casters, groups: what throws shadows.
    """
    first = np.zeros((size, size, 3))
    hits, depth = np.zeros((size, size)), np.full((size, size), 1e9)
    shapes_hit = np.full((size, size), -1)
    lights = np.zeros((size, size, 2))
    active = np.empty(MOST, dtype=np.int64)
    o = (eye[0], eye[1], eye[2])
    for j in range(size):
        for i in range(size):
            d = _ray(forward, right, up, (i + 0.5) / size * 2 - 1, 1 - (j + 0.5) / size * 2)
            t, which = _hit(o, d, table, group, active)
            if t < 0.0:
                continue
            place, n = _surface_at(o, d, t, table, active)
            shadow, open_sky = _reached(place, n, casters, groups, light, active)
            row = materials[int(table[which, shapes.MATERIAL])]
            first[j, i] = _coloured(row, n, d, light, shadow, open_sky)
            hits[j, i], depth[j, i], shapes_hit[j, i] = 1.0, t, which
            lights[j, i, 0], lights[j, i, 1] = shadow, open_sky
    colour, share = first.copy(), hits.copy()
    if over == 1:
        return colour, share, depth
    weight = 1.0 / (over * over)
    for j in range(size):
        for i in range(size):
            if not _at_edge(first, hits, j, i):
                continue
            colour[j, i], share[j, i] = 0.0, 0.0
            for s in range(over * over):
                a = (i + (s % over + 0.5) / over) / size * 2 - 1
                b = 1 - (j + (s // over + 0.5) / over) / size * 2
                d = _ray(forward, right, up, a, b)
                t, which = _hit(o, d, table, group, active)
                if t < 0.0:
                    continue
                place, n = _surface_at(o, d, t, table, active)
                shadow, open_sky = lights[j, i, 0], lights[j, i, 1]
                if which != shapes_hit[j, i]:
                    shadow, open_sky = _reached(place, n, casters, groups, light, active)
                row = materials[int(table[which, shapes.MATERIAL])]
                red, green, blue = _coloured(row, n, d, light, shadow, open_sky)
                colour[j, i, 0] += weight * red
                colour[j, i, 1] += weight * green
                colour[j, i, 2] += weight * blue
                share[j, i] += weight
                depth[j, i] = min(depth[j, i], t)
    return colour, share, depth
