"""`understudy explain`: what a model attends to in a photo, and what a swap would take from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.cli.results import OutOption
from understudy.cli.sources import MethodOption, PhotoOption, RegionOption, SeedOption
from understudy.jobs.request import Job
from understudy.settings import RunSettings, SwapSettings
from understudy.settings.marks import MarkSettings
from understudy.settings.swap import inversion_for


@knobs
def explain(
    prompt: Annotated[str, typer.Option(help="Prompt that describes the photo.")],
    settings: SwapSettings,
    run: RunSettings,
    provenance: MarkSettings,
    photo: PhotoOption = None,
    seed: SeedOption = None,
    swap: Annotated[
        list[str],
        typer.Option(help="WORD=CONCEPT: also draw the region that this swap may change."),
    ] = [],  # noqa: B006
    method: MethodOption = "direct",
    region: RegionOption = "auto",
    out: OutOption = Path("explained.png"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw the attention of the model on a photo.

    Cross-attention maps of each word, components of self-attention, the schedule of a swap, and
    with --swap the region that it may change.
    """
    job = Job.of(
        "explain",
        settings,
        run,
        provenance,
        inversion_for(settings, run.model, method),
        seed=seed,
        prompt=prompt,
        swap=swap,
        region=region,
        photo=photo,
        out=out,
    )
    show.job(job, json)
