"""The option for the picture that a command writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

OutOption = Annotated[Path, typer.Option(help="The picture to write: .png, .jpg or .webp.")]
