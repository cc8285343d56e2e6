"""Options that most commands share: the picture that is written, JSON output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OutOption = Annotated[Path, typer.Option(help="The picture to write: .png, .jpg or .webp.")]
