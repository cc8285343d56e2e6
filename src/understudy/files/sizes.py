"""Sizes and ages as people write them: "20 GB", "30 days"."""

from __future__ import annotations

import re

from understudy.errors import InputError

UNITS = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", re.I)
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([mhdw])\w*", re.I)


def parse_size(text: str, name: str) -> int:
    """ "20 GB", "500MB" or a number of bytes -> bytes; units are powers of 1000.

    name: of the option or variable, for the InputError that anything else raises.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise InputError(f"{name} must be a size like 20GB or 500MB. Got {text!r}.")
    return int(float(match[1]) * UNITS[match[2].lower()])


def parse_age(text: str, name: str) -> float:
    """ "30d", "12 hours" or "2w" -> seconds. Raises InputError for anything else."""
    match = _AGE.fullmatch(text.strip())
    if not match:
        raise InputError(f"{name} must be an age like 30d, 12h or 2w. Got {text!r}.")
    return float(match[1]) * SECONDS[match[2].lower()]


def size_text(size: float) -> str:
    """Bytes for people: "1.2 GB"."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{int(size)} bytes"
