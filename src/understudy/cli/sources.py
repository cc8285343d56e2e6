"""Options of the commands that invert a photo or select a region."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.settings import METHODS

MethodOption = Annotated[str, typer.Option(help="inversion method", metavar="|".join(METHODS))]
SuitedMethodOption = Annotated[
    str | None,
    typer.Option(help="inversion method; default: by preset", metavar="|".join(METHODS)),
]
SamOption = Annotated[
    Path | None, typer.Option(help="Folder of a SAM 2 model that draws the mask of --select.")
]
