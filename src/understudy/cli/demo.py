"""`understudy demo`: the main job on toys, beside the right answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("demo_out"),
) -> None:
    """Learn a toy, swap it into a photo, compare."""
