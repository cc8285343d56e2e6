"""Former names of settings and inputs, which recipes, jobs and runs of earlier versions still use.

A renamed setting keeps its entry here, so that a picture's recipe can be run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

V = TypeVar("V")

SETTINGS: Mapping[str, Mapping[str, str]] = {  # group -> former name -> name
    "dreambooth": {"clip": "clip_model", "dino": "dino_model"},
    "edit": {"keep_threshold": "preserve_threshold"},
    "learn": {"keep": "keep_checkpoints"},
    "swap": {"keep": "features"},
    "swapbench": {"clip": "clip_model", "dino": "dino_model"},
}
INPUTS: Mapping[str, Mapping[str, str]] = {  # verb -> former name -> name
    "edit": {"keep": "preserve"},
}


def current(values: Mapping[str, V], former: Mapping[str, str]) -> dict[str, V]:
    """The values under their present names."""
    return {former.get(name, name): value for name, value in values.items()}
