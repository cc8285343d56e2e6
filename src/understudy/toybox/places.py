"""The twelve backgrounds: colour of the ground and of the wall or sky behind it; numba.

All colours are linear light. Noise is hashed from integers, so it is the same everywhere. Knows
nothing of toys.
"""

from __future__ import annotations

import math

from understudy.toybox.shapes import compiled
from understudy.toybox.vocabulary import BACKGROUNDS

_NAMES = tuple(BACKGROUNDS)
MEADOW, BEACH, SNOW, DESERT, STREET, WOOD, CHECKER, NIGHT, FOREST, SUNSET, STUDIO, RUG = range(12)
INDOORS = (WOOD, CHECKER, STUDIO, RUG)
WALL_Z = -1.9


@compiled
def hashed(i, j):  # type: ignore[no-untyped-def]
    """A number in [0, 1) from two integers."""
    n = (int(i) * 374761393 + int(j) * 668265263) & 0x7FFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0x7FFFFFFF
    return ((n ^ (n >> 16)) & 0xFFFF) / 65536.0


@compiled
def noise(x, y):  # type: ignore[no-untyped-def]
    """Smooth value noise in [0, 1]."""
    i, j = math.floor(x), math.floor(y)
    u, v = x - i, y - j
    u, v = u * u * (3.0 - 2.0 * u), v * v * (3.0 - 2.0 * v)
    low = hashed(i, j) * (1.0 - u) + hashed(i + 1, j) * u
    high = hashed(i, j + 1) * (1.0 - u) + hashed(i + 1, j + 1) * u
    return low * (1.0 - v) + high * v


@compiled
def _mix(a, b, t):  # type: ignore[no-untyped-def]
    t = min(max(t, 0.0), 1.0)
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t)


@compiled
def _step(low, high, x):  # type: ignore[no-untyped-def]
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@compiled
def ground(kind, x, z, phase):  # type: ignore[no-untyped-def]
    """Colour of the ground at (x, z)."""
    u, v = x + 7.3 * phase, z + 3.1 * phase
    n = noise(3.0 * u, 3.0 * v)
    if kind == MEADOW:
        blades = noise(26.0 * u, 9.0 * v)
        return _mix((0.07, 0.26, 0.035), (0.20, 0.47, 0.07), 0.55 * n + 0.45 * blades)
    if kind == BEACH:
        sand = _mix((0.72, 0.55, 0.30), (0.86, 0.70, 0.42), 0.5 * n + 0.5 * noise(18 * u, 18 * v))
        edge = -1.55 + 0.16 * math.sin(1.7 * u) + 0.05 * math.sin(5.0 * u)
        sea = _mix((0.04, 0.33, 0.50), (0.10, 0.50, 0.62), noise(2.5 * u, 12.0 * v))
        foam = _step(0.16, 0.0, abs(z - edge + 0.06))
        return _mix(_mix(sea, sand, _step(edge - 0.03, edge + 0.03, z)), (0.9, 0.95, 0.97), foam)
    if kind == SNOW:
        return _mix((0.78, 0.85, 0.95), (0.97, 0.98, 1.0), 0.7 * n + 0.3 * noise(9 * u, 9 * v))
    if kind == DESERT:
        ripple = 0.5 + 0.5 * math.sin(16.0 * v + 3.0 * noise(1.5 * u, 1.5 * v) + 1.5 * u)
        return _mix((0.62, 0.27, 0.07), (0.83, 0.43, 0.14), 0.5 * ripple + 0.4 * n)
    if kind == STREET:
        tar = _mix((0.075, 0.077, 0.082), (0.125, 0.127, 0.13), noise(24.0 * u, 24.0 * v))
        along = math.floor((x + 7.0 * phase) * 1.1)
        dash = abs(z + 0.72) < 0.075 and (x + 7.0 * phase) * 1.1 - along < 0.6
        if dash:
            return (0.75, 0.75, 0.70)
        if z < -1.45:
            return (0.34, 0.33, 0.32) if z < -1.55 else (0.20, 0.20, 0.20)
        return tar
    if kind == WOOD:
        plank = math.floor(u * 3.2)
        tone = hashed(plank, 7)
        grain = noise(40.0 * u + 9.0 * tone, 2.2 * v + 17.0 * tone)
        gap = u * 3.2 - plank
        wood = _mix((0.36, 0.155, 0.05), (0.58, 0.29, 0.11), 0.55 * tone + 0.45 * grain)
        return _mix(wood, (0.12, 0.05, 0.02), _step(0.05, 0.0, min(gap, 1.0 - gap)))
    if kind == CHECKER:
        odd = (math.floor(u * 1.9) + math.floor(v * 1.9)) % 2
        return (0.80, 0.79, 0.80) if odd == 0 else (0.075, 0.15, 0.30)
    if kind == NIGHT:
        return _mix((0.035, 0.05, 0.12), (0.06, 0.085, 0.19), n)
    if kind == FOREST:
        litter = noise(13.0 * u, 13.0 * v)
        return _mix((0.055, 0.045, 0.02), (0.15, 0.105, 0.04), 0.6 * litter + 0.3 * n)
    if kind == SUNSET:
        return _mix((0.19, 0.075, 0.12), (0.33, 0.13, 0.15), n)
    if kind == STUDIO:
        return (0.62, 0.63, 0.66)
    return _rug(x, z, phase)


@compiled
def _rug(x, z, phase):  # type: ignore[no-untyped-def]
    edge = max(abs(x) / 1.55, abs(z - 0.05) / 1.05)
    if edge > 1.0:
        return (0.42, 0.36, 0.30)
    if edge > 0.90:
        return (0.80, 0.60, 0.25)
    diamond = abs((x * 2.4 + phase) % 1.0 - 0.5) + abs((z * 2.4) % 1.0 - 0.5)
    weave = 0.92 + 0.16 * noise(40.0 * x, 40.0 * z)
    base = (0.55, 0.045, 0.055) if diamond > 0.30 else (0.33, 0.02, 0.06)
    return (base[0] * weave, base[1] * weave, base[2] * weave)


@compiled
def wall(kind, x, y, phase):  # type: ignore[no-untyped-def]
    """Colour of the wall behind an indoor place."""
    if kind == STUDIO:
        return _mix((0.62, 0.63, 0.66), (0.45, 0.46, 0.50), _step(0.0, 2.2, y))
    if y < 0.13:
        return (0.80, 0.78, 0.74) if y < 0.115 else (0.35, 0.33, 0.30)
    if kind == WOOD:
        return _mix((0.74, 0.66, 0.50), (0.68, 0.60, 0.45), noise(2.0 * x, 2.0 * y + phase))
    if kind == CHECKER:
        row = math.floor(y * 4.0)
        brick = x * 2.0 + 0.5 * (row % 2)
        joint = min(y * 4.0 - row, brick - math.floor(brick))
        if joint < 0.06:
            return (0.75, 0.78, 0.78)
        return (0.40, 0.62, 0.60)
    stripe = (x * 3.0 + phase) % 1.0
    return (0.60, 0.58, 0.42) if stripe < 0.5 else (0.52, 0.49, 0.33)


@compiled
def sky(kind, dx, dy, dz, phase):  # type: ignore[no-untyped-def]
    """Colour seen in an outdoor direction above the horizon."""
    turned = math.atan2(dx, -dz)
    up = max(dy, 0.0)
    if kind == MEADOW:
        colour = _clouds(_mix((0.60, 0.78, 0.92), (0.20, 0.46, 0.85), up * 3.0), turned, up, phase)
        hill = 0.055 + 0.03 * math.sin(5.0 * turned + 6.0 * phase) + 0.02 * math.sin(11.0 * turned)
        return _mix((0.10, 0.30, 0.10), colour, _step(hill - 0.004, hill + 0.004, dy))
    if kind == BEACH:
        colour = _clouds(_mix((0.72, 0.86, 0.93), (0.13, 0.48, 0.83), up * 3.0), turned, up, phase)
        return _mix((0.05, 0.30, 0.50), colour, _step(-0.002, 0.006, dy - 0.012))
    if kind == SNOW:
        colour = _mix((0.80, 0.85, 0.91), (0.47, 0.60, 0.76), up * 2.5)
        peak = 0.07 + 0.11 * abs(math.sin(4.3 * turned + 5.0 * phase)) * noise(6.0 * turned, phase)
        stone = _mix((0.35, 0.42, 0.53), (0.85, 0.88, 0.93), _step(peak - 0.075, peak - 0.03, dy))
        return _mix(stone, colour, _step(peak - 0.004, peak + 0.004, dy))
    if kind == DESERT:
        colour = _mix((0.93, 0.70, 0.42), (0.42, 0.60, 0.80), up * 3.2)
        dune = 0.05 + 0.05 * math.sin(3.1 * turned + 6.0 * phase)
        return _mix((0.62, 0.29, 0.09), colour, _step(dune - 0.003, dune + 0.003, dy))
    if kind == STREET:
        return _city(dy, turned, phase)
    if kind == FOREST:
        return _trees(dy, turned, phase)
    if kind == NIGHT:
        colour = _mix((0.045, 0.06, 0.17), (0.008, 0.012, 0.05), up * 2.5)
        i, j = math.floor(turned * 42.0), math.floor(dy * 42.0)
        star = hashed(i + math.floor(97.0 * phase), j) > 0.94
        fx, fy = turned * 42.0 - i - 0.5, dy * 42.0 - j - 0.5
        glow = _step(0.30, 0.10, math.sqrt(fx * fx + fy * fy)) if star else 0.0
        moon = math.sqrt((turned - 0.28 + 0.5 * phase) ** 2 + (dy - 0.20) ** 2)
        lit = _mix(colour, (0.75, 0.78, 0.85), glow)
        return _mix((0.92, 0.90, 0.78), lit, _step(0.045, 0.052, moon))
    colour = _mix((0.95, 0.36, 0.10), (0.30, 0.13, 0.34), up * 3.0)
    sun = math.sqrt((turned + 0.25 - 0.5 * phase) ** 2 + (dy - 0.07) ** 2)
    colour = _mix((1.0, 0.62, 0.18), colour, _step(0.0, 0.32, sun))
    colour = _mix((1.0, 0.88, 0.50), colour, _step(0.075, 0.085, sun))
    hill = 0.03 + 0.025 * math.sin(4.0 * turned + 9.0 * phase)
    return _mix((0.16, 0.055, 0.12), colour, _step(hill - 0.003, hill + 0.003, dy))


@compiled
def _clouds(colour, turned, up, phase):  # type: ignore[no-untyped-def]
    x, y = 3.2 * turned + 11.0 * phase, 13.0 * up
    puff = 0.6 * noise(x, y) + 0.4 * noise(2.7 * x + 5.0, 2.7 * y)
    return _mix(colour, (0.93, 0.95, 0.97), 0.85 * _step(0.52, 0.74, puff) * _step(0.03, 0.10, up))


@compiled
def _city(dy, turned, phase):  # type: ignore[no-untyped-def]
    block = math.floor(turned * 8.0 + 5.0 * phase)
    tall = 0.16 + 0.28 * hashed(block, 3)
    if dy > tall:
        return _mix((0.72, 0.80, 0.86), (0.42, 0.60, 0.80), dy * 2.5)
    tone = 0.16 + 0.20 * hashed(block, 5)
    warm = 0.02 * hashed(block, 9)
    across = (turned * 8.0 + 5.0 * phase - block) * 4.0
    storey = dy * 26.0
    pane = across - math.floor(across) > 0.42 and storey - math.floor(storey) > 0.45
    if pane and dy > 0.03:
        return (0.42, 0.50, 0.56)
    return (tone + 2.0 * warm, tone, tone - warm)


@compiled
def _trees(dy, turned, phase):  # type: ignore[no-untyped-def]
    leaves = noise(22.0 * turned + 9.0 * phase, 22.0 * dy)
    colour = _mix((0.035, 0.13, 0.045), (0.16, 0.34, 0.10), leaves * min(max(dy * 3.0, 0.25), 1.0))
    x = turned * 9.0 + 7.0 * phase
    trunk = math.floor(x)
    middle = 0.3 + 0.4 * hashed(trunk, 11)
    width = 0.10 + 0.09 * hashed(trunk, 13)
    if abs(x - trunk - middle) < width and dy < 0.5:
        bark = noise(60.0 * turned, 6.0 * dy)
        return _mix((0.06, 0.035, 0.018), (0.13, 0.075, 0.035), bark)
    return colour


def number(kind: str) -> int:
    """The background's number in the tracer."""
    return _NAMES.index(kind)
