"""Options of the commands that invert a photo or select a region."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.settings import METHODS

MethodOption = Annotated[str, typer.Option(help="Inversion method.", metavar="|".join(METHODS))]
SuitedMethodOption = Annotated[
    str | None,
    typer.Option(help="Inversion method; default: that of the preset.", metavar="|".join(METHODS)),
]
SamOption = Annotated[
    Path | None, typer.Option(help="Folder of a SAM 2 model that draws the mask of --select.")
]
