"""`understudy rerun`: makes a picture again from its recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.cli import show
from understudy.cli.results import JsonOption, OutOption
from understudy.jobs.request import Job


def rerun(
    picture: Annotated[Path, typer.Argument(help="A picture that understudy made.")],
    inputs: Annotated[
        list[str],
        typer.Option(
            help="Folder to search for inputs and model, besides the current folder and the "
            "picture's."
        ),
    ] = [],  # noqa: B006
    out: OutOption = Path("rerun.png"),
    json: JsonOption = False,
) -> None:
    """Make a picture again from its recipe, and compare the pixels.

    Photos, masks, concepts and models are found by name and must be the same as in the recipe; what
    is missing or was changed is listed. The cache is not used. Exit code 1: the pixels differ.
    """
    made = show.job(Job.of("rerun", picture=picture, inputs=inputs, out=out), json)
    if not made.values["identical"]:
        raise typer.Exit(1)
