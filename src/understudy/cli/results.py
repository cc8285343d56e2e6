"""What commands that write a picture share: the option for its file, and how a drag ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.cli import show

if TYPE_CHECKING:
    from understudy.drag import DragStep

OutOption = Annotated[Path, typer.Option(help="The picture to write: .png, .jpg or .webp.")]

DRAG_ENDS = {  # by `Session.stop`
    "reached": "arrived after {steps} steps",
    "cap": "ended at the limit of {steps} steps (--steps)",
    "stalled": "stopped after {steps} steps without progress",
    "stopped": "stopped after {steps} steps",
}


def show_drag(out: Path, last: DragStep, json: bool) -> None:
    """How a drag went, on stdout."""
    left, stop = sum(last.left) / len(last.left), last.session.stop
    told: dict[str, object] = {"picture": str(out), "stop": stop, "steps": last.index, "left": left}
    told |= {"points": [list(point) for point in last.points]}
    words = DRAG_ENDS[stop].format(steps=last.index)
    show.result(told, json, f"{out}   {words}, {left:.1f} px left")
