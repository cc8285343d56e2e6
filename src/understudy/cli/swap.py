"""`understudy swap`: concepts take the places of a photo's subjects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.cli.results import OutOption
from understudy.cli.sources import (
    MaskOption,
    PhotoOption,
    PhotosOption,
    SamOption,
    SeedOption,
    SelectOption,
    SuitedMethodOption,
    SwapRegionOption,
)
from understudy.jobs.request import Job
from understudy.settings import RunSettings, SwapSettings
from understudy.settings.marks import MarkSettings
from understudy.settings.swap import inversion_for


@knobs
def swap(
    prompt: Annotated[
        str, typer.Option(help="Prompt that describes the photo, subjects included.")
    ],
    swap: Annotated[
        list[str],
        typer.Option(
            help="WORD=CONCEPT, like cat=rex: who takes whose place. cat#2=rex means the second "
            "cat alone. May be repeated."
        ),
    ],
    settings: SwapSettings,
    run: RunSettings,
    provenance: MarkSettings,
    photo: PhotoOption = None,
    seed: SeedOption = None,
    method: SuitedMethodOption = None,
    mask: MaskOption = None,
    select: SelectOption = [],  # noqa: B006
    sam: SamOption = None,
    region: SwapRegionOption = "auto",
    photos: PhotosOption = None,
    out: OutOption = Path("swapped.png"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Replace subjects of a photo by concepts, keeping pose and background (Photoswap).

    The photo is inverted first. Inversion and features are cached for later swaps of the photo.
    """
    job = Job.of(
        "swap",
        settings,
        run,
        provenance,
        inversion_for(settings, run.model, method),
        seed=seed,
        prompt=prompt,
        swap=swap,
        photo=photo,
        mask=mask,
        region=region,
        select=select,
        sam=sam,
        photos=photos,
        out=out,
    )
    show.job(job, json)
