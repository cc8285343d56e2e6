"""`understudy mask`: what a selection finds in a photo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.cli.results import JsonOption, OutOption
from understudy.cli.sources import SamOption
from understudy.jobs.request import Job
from understudy.settings import RunSettings


@knobs
def mask(
    photo: Annotated[Path, typer.Argument(help="The photo.")],
    select: Annotated[
        list[str],
        typer.Option(
            help="A word, a point X,Y on the subject, or a box X,Y,W,H around it, in pixels. May "
            "be repeated: masks of words are combined, points select, a box restricts."
        ),
    ],
    run: RunSettings,
    prompt: Annotated[
        str | None, typer.Option(help="Prompt that describes the photo and contains the words.")
    ] = None,
    sam: SamOption = None,
    view: Annotated[
        Path | None,
        typer.Option(help="Also write the photo with everything but the subject dimmed."),
    ] = None,
    out: OutOption = Path("mask.png"),
    json: JsonOption = False,
) -> None:
    """Find a subject in a photo and write its mask: white is the subject.

    swap and edit find the same mask with --select, and grow it by 6 %. A mask corrected by hand
    goes to --mask. It is used as it is: paint it a little larger than the subject.
    """
    job = Job.of(
        "mask", run, photo=photo, select=select, prompt=prompt, sam=sam, view=view, out=out
    )
    show.job(job, json)
