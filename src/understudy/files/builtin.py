"""Where the models and concepts of the package lie. Knows nothing of what is in them."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"

# Names of the built-in models, and their folders under weights/.
BUILT_IN = {"toybox": "toybox-diffusion", "toybox-flow": "toybox-flow"}
GENERATORS = ("toybox-gan",)  # likewise, those that --generator takes
# Concepts of the built-in model, and where they lie; `scripts/ready_concept.py` learns them.
BUILT_IN_CONCEPTS, CONCEPTS = ("toby",), WEIGHTS / "concepts"


def builtin_folder(name: str) -> Path | None:
    """The folder of a built-in model or generator in the package; None for any other name.

    It has the model's configurations and what suits it; that of toybox-flow lacks weights that it
    shares with toybox (`models/shared_parts.py`).
    """
    folder = BUILT_IN.get(name, name if name in GENERATORS else None)
    return None if folder is None else WEIGHTS / folder


def builtin_concept(name: str) -> Path | None:
    """The folder of a concept that ships with the package; None for any other name."""
    return CONCEPTS / name if name in BUILT_IN_CONCEPTS else None
