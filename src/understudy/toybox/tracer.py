"""Traces one ray through the toy world: the hit, and its shading; compiled with numba.

Sphere tracing (J. C. Hart, 1996) inside the bounding spheres of toys and props, an analytic ground
and wall, soft shadows by the nearest miss along the shadow ray (S. Aaltonen, I. Quilez), and
ambient occlusion from two distances along the normal. Knows nothing of classes or captions.
"""

from __future__ import annotations

import math

import numpy as np

from understudy.toybox import materials as mat
from understudy.toybox import places, shapes
from understudy.toybox.places import STUDIO, WALL_Z
from understudy.toybox.shapes import compiled

# Columns of a group's row: bounding sphere, first and last shape, first material.
GROUP_ROW = 7
# The light, 13 numbers: direction to it, its colour, colours of sky and ground light, softness.
MOST = 96  # shapes near one ray


@compiled
def within_ball(group, o, d):  # type: ignore[no-untyped-def]
    """Where a ray enters and leaves the group's bounding sphere; enters > leaves for a miss."""
    x, y, z = o[0] - group[0], o[1] - group[1], o[2] - group[2]
    b = x * d[0] + y * d[1] + z * d[2]
    h = b * b - (x * x + y * y + z * z - group[3] * group[3])
    if h <= 0.0:
        return 1.0, 0.0
    h = math.sqrt(h)
    return max(-b - h, 0.0), -b + h


@compiled
def march(table, active, count, o, d, start, end):  # type: ignore[no-untyped-def]
    """First hit between start and end: distance (or -1) and shape."""
    t = start
    for _ in range(72):
        gap, which = shapes.nearest(
            table, active, count, o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]
        )
        if gap < 0.0012:
            return t, which
        t += 0.92 * gap
        if t > end:
            break
    return -1.0, -1


@compiled
def normal_at(table, active, count, x, y, z):  # type: ignore[no-untyped-def]
    e = 0.002
    a, _ = shapes.nearest(table, active, count, x + e, y - e, z - e)
    b, _ = shapes.nearest(table, active, count, x - e, y - e, z + e)
    c, _ = shapes.nearest(table, active, count, x - e, y + e, z - e)
    d, _ = shapes.nearest(table, active, count, x + e, y + e, z + e)
    nx, ny, nz = a - b - c + d, -a - b + c + d, -a + b - c + d
    length = math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12
    return nx / length, ny / length, nz / length


@compiled
def shadow_at(table, groups, o, light, active):  # type: ignore[no-untyped-def]
    """Share of the light that reaches o, in [0, 1]."""
    d, softness = (light[0], light[1], light[2]), light[12]
    lit = 1.0
    for g in range(groups.shape[0]):
        start, end = within_ball(groups[g], o, d)
        if start > end:
            continue
        first, last = int(groups[g, 4]), int(groups[g, 5])
        count = shapes.gather(table, first, last, o, d, end, 0.10, active)
        if count == 0:
            continue
        t = max(start, 0.02)
        for _ in range(28):
            gap, _w = shapes.nearest(
                table, active, count, o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]
            )
            lit = min(lit, softness * gap / t)
            if lit < 0.02 or t > end:
                break
            t += max(0.9 * gap, 0.012)
        if lit < 0.02:
            return 0.0
    lit = max(lit, 0.0)
    return lit * lit * (3.0 - 2.0 * lit)


@compiled
def open_sky_at(table, groups, x, y, z, nx, ny, nz, active):  # type: ignore[no-untyped-def]
    """How much of the sky is seen, in [0, 1], from distances along the normal."""
    loss = 0.0
    for k in range(2):
        reach = 0.07 + 0.15 * k
        px, py, pz = x + reach * nx, y + reach * ny, z + reach * nz
        gap = min(py, reach) if ny < 0.99 else reach
        for g in range(groups.shape[0]):
            gx, gy, gz = px - groups[g, 0], py - groups[g, 1], pz - groups[g, 2]
            radius = groups[g, 3] + reach
            if gx * gx + gy * gy + gz * gz > radius * radius:
                continue
            count = shapes.gather(
                table, int(groups[g, 4]), int(groups[g, 5]),
                (px, py, pz), (0.0, 1.0, 0.0), 0.0, reach, active,
            )  # fmt: skip
            if count > 0:
                d, _w = shapes.nearest(table, active, count, px, py, pz)
                gap = min(gap, d)
        loss += (reach - max(gap, 0.0)) / reach * (0.55 if k == 0 else 0.40)
    return max(1.0 - loss, 0.0)


@compiled
def _pattern(row, x, y, z):  # type: ignore[no-untyped-def]
    """Share of the second colour at a point of the shape's own frame, in [0, 1]."""
    kind = int(row[mat.PATTERN])
    if kind == 0:
        return 0.0
    s = row[mat.SCALE]
    x, y, z = x * s + row[8], y * s + row[9], z * s + row[10]
    if kind == 1:
        return 1.0 if math.sin(34.0 * (y + 0.35 * x)) > 0.25 else 0.0
    if kind == 2:
        cell = 6.6
        u, v, w = x * cell, y * cell, z * cell
        fu, fv, fw = u - math.floor(u) - 0.5, v - math.floor(v) - 0.5, w - math.floor(w) - 0.5
        return 1.0 if fu * fu + fv * fv + fw * fw < 0.085 else 0.0
    wave = math.sin(8.0 * x + 1.7) + math.sin(9.0 * y + 0.6) + math.sin(7.0 * z + 2.3)
    return 1.0 if wave > 0.95 else 0.0


@compiled
def lit(colour, n, d, light, shadow, openness, gloss):  # type: ignore[no-untyped-def]
    """Reflected light: sun, sky above, bounce from below, a highlight."""
    facing = max(n[0] * light[0] + n[1] * light[1] + n[2] * light[2], 0.0)
    hx, hy, hz = light[0] - d[0], light[1] - d[1], light[2] - d[2]
    h = math.sqrt(hx * hx + hy * hy + hz * hz)
    shine = max((n[0] * hx + n[1] * hy + n[2] * hz) / h, 0.0) ** (20.0 + 60.0 * gloss)
    rim = (1.0 - max(-(n[0] * d[0] + n[1] * d[1] + n[2] * d[2]), 0.0)) ** 3
    up = 0.5 + 0.5 * n[1]
    red = _channel(colour, light, 0, facing, shine, rim, up, shadow, openness, gloss)
    green = _channel(colour, light, 1, facing, shine, rim, up, shadow, openness, gloss)
    blue = _channel(colour, light, 2, facing, shine, rim, up, shadow, openness, gloss)
    return red, green, blue


@compiled
def _channel(colour, light, k, facing, shine, rim, up, shadow, openness, gloss):  # type: ignore[no-untyped-def]
    ambient = (light[6 + k] * up + light[9 + k] * (1.0 - up)) * openness
    sun = light[3 + k] * shadow
    return (
        colour[k] * (sun * facing + ambient) + 0.55 * gloss * sun * shine
        + (0.05 + 0.10 * gloss) * rim * light[6 + k] * openness
    )  # fmt: skip


@compiled
def sample(o, d, table, groups, materials, light, place, active):  # type: ignore[no-untyped-def]
    """Colour along one ray, the group hit (or -1), and its distance."""
    kind, phase, indoors, shade = int(place[0]), place[1], place[2] > 0.5, place[3]
    # Ground and wall.
    far = 1e9
    if d[1] < -1e-6:
        far = -o[1] / d[1]
    behind = False
    if indoors and d[2] < -1e-6:
        t = (WALL_Z - o[2]) / d[2]
        if t < far:
            far, behind = t, True
    # Toys and props.
    best, hit, shape = far, -1, -1
    for g in range(groups.shape[0]):
        start, end = within_ball(groups[g], o, d)
        if start > end or start > best:
            continue
        end = min(end, best)
        count = shapes.gather(table, int(groups[g, 4]), int(groups[g, 5]), o, d, end, 0.0, active)
        if count == 0:
            continue
        t, which = march(table, active, count, o, d, start, end)
        if t >= 0.0 and t < best:
            best, hit, shape = t, g, which
    if best > 1e8:
        c = places.sky(kind, d[0], d[1], d[2], phase)
        bright = 1.0 + 0.2 * shade
        return c[0] * bright, c[1] * bright, c[2] * bright, -1, 60.0
    x, y, z = o[0] + best * d[0], o[1] + best * d[1], o[2] + best * d[2]
    if hit < 0:
        c = _scenery(o, d, x, y, z, best, behind, table, groups, light, place, active)
        return c[0], c[1], c[2], -1, best
    # Normal from the shapes around the point.
    count = shapes.gather(
        table, int(groups[hit, 4]), int(groups[hit, 5]), (x, y, z), d, 0.0, 0.02, active
    )
    n = normal_at(table, active, count, x, y, z)
    row = materials[int(groups[hit, 6] + table[shape, shapes.MATERIAL])]
    lx, ly, lz = shapes.local(table, shape, x, y, z)
    t = _pattern(row, lx, ly, lz)
    colour = (
        row[0] + (row[3] - row[0]) * t, row[1] + (row[4] - row[1]) * t,
        row[2] + (row[5] - row[2]) * t,
    )  # fmt: skip
    start = (x + 0.012 * n[0], y + 0.012 * n[1], z + 0.012 * n[2])
    facing = n[0] * light[0] + n[1] * light[1] + n[2] * light[2]
    shadow = shadow_at(table, groups, start, light, active) if facing > 0.0 else 0.0
    openness = open_sky_at(table, groups, x, y, z, n[0], n[1], n[2], active)
    red, green, blue = lit(colour, n, d, light, shadow, openness, row[mat.GLOSS])
    glow = row[mat.GLOW]
    return red + glow * colour[0], green + glow * colour[1], blue + glow * colour[2], hit, best


@compiled
def _scenery(o, d, x, y, z, t, behind, table, groups, light, place, active):  # type: ignore[no-untyped-def]
    """Colour of the ground or the wall at a point."""
    kind, phase, indoors, shade = int(place[0]), place[1], place[2] > 0.5, place[3]
    if behind:
        colour, n = places.wall(kind, x, y, phase), (0.0, 0.0, 1.0)
    else:
        colour, n = places.ground(kind, x, z, phase), (0.0, 1.0, 0.0)
    if kind == STUDIO and not behind:
        colour = places.wall(kind, x, 0.0, phase)
    start = (x + 0.01 * n[0], y + 0.01 * n[1], z + 0.01 * n[2])
    shadow = shadow_at(table, groups, start, light, active)
    openness = open_sky_at(table, groups, x, y, z, n[0], n[1], n[2], active)
    up = n if kind != STUDIO else (0.0, 0.8, 0.6)
    red, green, blue = lit(colour, up, d, light, shadow, openness, 0.0)
    bright = 1.0 + 0.2 * shade
    red, green, blue = red * bright, green * bright, blue * bright
    if indoors:
        return red, green, blue
    # Far ground fades into the horizon.
    haze = places.sky(kind, d[0], 0.0, d[2], phase)
    f = min(max((t - 6.5) / 14.0, 0.0), 0.85)
    return red + (haze[0] - red) * f, green + (haze[1] - green) * f, blue + (haze[2] - blue) * f


@compiled
def direction(forward, right, up, i, j, s, over, width, height):  # type: ignore[no-untyped-def]
    """Unit vector of ray s (of over * over) through the pixel in column i and row j."""
    a = (i + (s % over + 0.5) / over) / width * 2.0 - 1.0
    b = 1.0 - (j + (s // over + 0.5) / over) / height * 2.0
    x = forward[0] + a * right[0] + b * up[0]
    y = forward[1] + a * right[1] + b * up[1]
    z = forward[2] + a * right[2] + b * up[2]
    length = math.sqrt(x * x + y * y + z * z)
    return x / length, y / length, z / length


@compiled
def trace(eye, forward, right, up, width, height, over, table, groups, materials, light, place):  # type: ignore[no-untyped-def]
    """The whole picture: linear colour (h, w, 3), share and depth of each group (h, w, g)."""
    colour = np.zeros((height, width, 3))
    share = np.zeros((height, width, max(groups.shape[0], 1)))
    depth = np.full((height, width, max(groups.shape[0], 1)), 1e9)
    active = np.empty(MOST, dtype=np.int64)
    weight = 1.0 / (over * over)
    for j in range(height):
        for i in range(width):
            for s in range(over * over):
                d = direction(forward, right, up, i, j, s, over, width, height)
                o = (eye[0], eye[1], eye[2])
                red, green, blue, hit, t = sample(
                    o, d, table, groups, materials, light, place, active
                )
                colour[j, i, 0] += weight * min(max(red, 0.0), 1.0)
                colour[j, i, 1] += weight * min(max(green, 0.0), 1.0)
                colour[j, i, 2] += weight * min(max(blue, 0.0), 1.0)
                if hit >= 0:
                    share[j, i, hit] += weight
                    depth[j, i, hit] = min(depth[j, i, hit], t)
    return colour, share, depth
