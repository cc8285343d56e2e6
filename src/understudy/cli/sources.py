"""The options of all commands that begin with a photo, or with the picture of a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.settings import METHODS

PhotoOption = Annotated[Path | None, typer.Argument(help="The photo.", show_default=False)]
SeedOption = Annotated[
    int | None, typer.Option(help="Use the picture of this seed instead of a photo.", min=0)
]
MethodOption = Annotated[str, typer.Option(help="inversion method", metavar="|".join(METHODS))]
SuitedMethodOption = Annotated[
    str | None,
    typer.Option(help="inversion method; default: by preset", metavar="|".join(METHODS)),
]
MaskOption = Annotated[
    Path | None, typer.Option(help="Mask of the same size as the photo; white may change.")
]
SelectOption = Annotated[
    list[str],
    typer.Option(
        help="What may change, in place of a mask: a word of the prompt, a point X,Y on the "
        "subject, or a box X,Y,W,H around it, in pixels. May be repeated."
    ),
]
SamOption = Annotated[
    Path | None, typer.Option(help="Folder of a SAM 2 model that draws the mask of --select.")
]
RegionOption = Annotated[
    str,
    typer.Option(
        help="Part of the photo to edit: auto (around the mask or the subject), full, or X,Y,W,H "
        "in pixels. The result has the photo's size."
    ),
]
SwapRegionOption = Annotated[
    str,
    typer.Option(
        help="Part of the photo to edit: auto (around the mask or the subjects), each (one swap "
        "after the other, each around its own subject), full, or X,Y,W,H in pixels. The result has "
        "the photo's size."
    ),
]
PhotosOption = Annotated[
    Path | None, typer.Option(help="Photos of the concept, to score results with.")
]
