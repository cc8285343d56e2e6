"""Materials: one row of colours and pattern for each material of a subject or prop."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from understudy.toybox import vocabulary as words
from understudy.toybox.scene import Identity

# Materials of one subject, by index; a prop uses PRIMARY only.
(
    PRIMARY, SECONDARY, ACCESSORY, EYE_WHITE, BLACK, SPARKLE, RUBBER, METAL, BEAK, BLUSH, GLASS,
    LAMP,
) = range(12)  # fmt: skip
COUNT = 12

# Columns of a material's row: two linear colours, pattern number, its scale, phase, gloss, glow.
FIRST, SECOND, PATTERN, SCALE, PHASE, GLOSS, GLOW = 0, 3, 6, 7, 8, 11, 12
ROW = 13

Table = Float[ndarray, "materials 13"]

_FIXED: dict[int, tuple[tuple[float, float, float], float, float]] = {  # colour, gloss, glow
    EYE_WHITE: ((0.97, 0.97, 0.97), 0.5, 0.25),
    BLACK: ((0.03, 0.03, 0.04), 0.9, 0.0),
    SPARKLE: ((1.0, 1.0, 1.0), 0.0, 1.0),
    RUBBER: ((0.12, 0.12, 0.13), 0.15, 0.0),
    METAL: ((0.62, 0.65, 0.69), 0.9, 0.0),
    BEAK: ((0.98, 0.60, 0.10), 0.4, 0.0),
    BLUSH: ((0.96, 0.60, 0.62), 0.2, 0.0),
    GLASS: ((0.62, 0.82, 0.93), 0.9, 0.1),
    LAMP: ((1.0, 0.93, 0.6), 0.5, 0.35),
}


def linear(colour: tuple[float, ...] | Float[ndarray, " xyz"]) -> Float[ndarray, " xyz"]:
    """sRGB in [0, 1] to linear light."""
    return np.clip(np.asarray(colour, dtype=np.float64), 0.0, 1.0) ** 2.2


def _row(
    first: Float[ndarray, " xyz"], gloss: float, glow: float = 0.0
) -> Float[ndarray, " columns"]:
    row = np.zeros(ROW)
    row[0:3] = row[3:6] = first
    row[SCALE], row[GLOSS], row[GLOW] = 1.0, gloss, glow
    return row


def of_identity(identity: Identity) -> Table:
    """The materials of one toy, (12, 13)."""
    tint = np.asarray(identity.tint)
    primary = linear(np.asarray(words.COLOURS[identity.primary]) + tint[:3])
    secondary = linear(np.asarray(words.COLOURS[identity.secondary]) + tint[3:])
    table = np.zeros((COUNT, ROW))
    table[PRIMARY] = _row(primary, 0.25)
    table[PRIMARY, SECOND : SECOND + 3] = secondary
    table[PRIMARY, PATTERN] = words.PATTERNS.index(identity.pattern)
    table[PRIMARY, SCALE] = 0.75 + 0.6 * identity.pattern_scale
    table[PRIMARY, PHASE : PHASE + 3] = identity.pattern_phase
    table[SECONDARY] = _row(secondary, 0.25)
    table[ACCESSORY] = _row(linear(words.COLOURS[identity.accessory_colour]), 0.35)
    for index, (colour, gloss, glow) in _FIXED.items():
        table[index] = _row(linear(colour), gloss, glow)
    return table


def of_prop(colour: str) -> Table:
    """The materials of a prop: its colour, and a pale partner for stems and trunks."""
    table = np.stack([_row(linear(words.COLOURS[colour]), 0.35)] * 2)
    table[SECONDARY] = _row(linear((0.86, 0.78, 0.66)), 0.2)
    return table
