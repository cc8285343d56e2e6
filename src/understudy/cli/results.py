"""What commands that write a picture share: the option for its file, and how a drag ended."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

OutOption = Annotated[Path, typer.Option(help="The picture to write: .png, .jpg or .webp.")]

DRAG_ENDS = {  # by `Session.stop`
    "reached": "arrived after {steps} steps",
    "cap": "ended at the limit of {steps} steps (--steps)",
    "stalled": "stopped after {steps} steps without progress",
    "stopped": "stopped after {steps} steps",
}
