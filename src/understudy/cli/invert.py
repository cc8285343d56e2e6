"""`understudy invert`: a photo to what the model can replay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.jobs.request import Job
from understudy.settings import InvertSettings, RunSettings

SUFFIX = ".inversion.safetensors"


@knobs
def invert(
    photo: Annotated[Path, typer.Argument(help="The photo to invert.")],
    prompt: Annotated[str, typer.Option(help="Prompt that describes the photo.")],
    settings: InvertSettings,
    run: RunSettings,
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default=f"PHOTO{SUFFIX}")
    ] = None,
    concept: Annotated[
        list[str], typer.Option(help="Concept to apply while inverting; may be repeated.")
    ] = [],  # noqa: B006
    region: Annotated[
        str, typer.Option(help="Part of the photo: full, or X,Y,W,H in pixels.")
    ] = "full",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Invert a photo: find the noise from which the model draws it."""
    job = Job.of(
        "invert",
        settings,
        run,
        photo=photo,
        prompt=prompt,
        out=out,
        concept=concept,
        region=region,
    )
    show.job(job, json)
