"""`understudy swap`: a concept takes the place of a photo's subject."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.cli.options import knobs
from understudy.settings import InvertSettings, RunSettings, SwapSettings


@knobs
def swap(
    photo: Annotated[Path, typer.Argument(help="The photo.")],
    prompt: Annotated[str, typer.Option(help="What the photo shows.")],
    swap: Annotated[str, typer.Option(help="WORD=CONCEPT, like cat=rex.")],
    settings: SwapSettings,
    run: RunSettings,
    out: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("swapped.png"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Swap a concept into a photo: its pose, its stage."""
