"""`understudy sweep`: what each number of swapped steps does, as one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.cli.results import OutOption
from understudy.cli.sources import (
    MaskOption,
    MethodOption,
    PhotoOption,
    PhotosOption,
    RegionOption,
    SamOption,
    SeedOption,
    SelectOption,
)
from understudy.jobs.request import Job
from understudy.settings import RunSettings, SwapSettings
from understudy.settings.marks import MarkSettings
from understudy.settings.swap import inversion_for


@knobs
def sweep(
    prompt: Annotated[
        str, typer.Option(help="Prompt that describes the photo, subjects included.")
    ],
    swap: Annotated[list[str], typer.Option(help="WORD=CONCEPT, like cat=rex; may be repeated.")],
    settings: SwapSettings,
    run: RunSettings,
    provenance: MarkSettings,
    photo: PhotoOption = None,
    seed: SeedOption = None,
    vary: Annotated[
        list[str],
        typer.Option(
            help="KNOB=V1,V2,.. of self-output, self-map, cross-map; once for a row, twice for a "
            "grid (rows, then columns). Without it: self-output by cross-map."
        ),
    ] = [],  # noqa: B006
    method: MethodOption = "null-text",
    mask: MaskOption = None,
    select: SelectOption = [],  # noqa: B006
    sam: SamOption = None,
    region: RegionOption = "auto",
    photos: PhotosOption = None,
    out: OutOption = Path("sweep.png"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Swap with a grid of step counts.

    The cells share the source and all steps for which their schedules agree. If a scorer is
    available for the model, identity and layout are drawn as curves as well.
    """
    job = Job.of(
        "sweep",
        settings,
        run,
        provenance,
        inversion_for(settings, run.model, method),
        seed=seed,
        prompt=prompt,
        swap=swap,
        photo=photo,
        vary=vary,
        mask=mask,
        region=region,
        select=select,
        sam=sam,
        photos=photos,
        out=out,
    )
    show.job(job, json)
