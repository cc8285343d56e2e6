"""`understudy edit`: new words for a photo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.cli.results import OutOption
from understudy.cli.sources import RegionOption, SamOption, SelectOption
from understudy.errors import InputError
from understudy.jobs.request import Job
from understudy.settings import METHODS, EditSettings, RunSettings
from understudy.settings.edit import inversion_for
from understudy.settings.marks import MarkSettings

Method = Annotated[
    str | None,
    typer.Option(
        help="Inversion method.  [default: null-text for p2p, else ddim]", metavar="|".join(METHODS)
    ),
]
Concepts = Annotated[
    list[str],
    typer.Option(help="Concept to apply, by name or folder; use {name} in --to. May be repeated."),
]
Weights = Annotated[
    list[str],
    typer.Option(help="WORD=2.0: factor on the attention to a word of --to. May be repeated."),
]
Windows = Annotated[
    list[str],
    typer.Option(
        help="WORD=0.4 or WORD=0.1:0.4: share of the steps in which it uses the source's attention."
    ),
]
Blended = Annotated[
    str | None, typer.Option(help="WORD or OLD=NEW: limit the change to the region of these words.")
]
Kept = Annotated[list[str], typer.Option(help="With --blend: words whose region must not change.")]
Mask = Annotated[
    Path | None, typer.Option(help="Mask of the same size as the photo; white may change.")
]
Seed = Annotated[
    int | None,
    typer.Option(help="hiper: start from the noise of this seed instead of the photo's."),
]


@knobs
def edit(
    photo: Annotated[Path, typer.Argument(help="The photo.")],
    prompt: Annotated[str, typer.Option(help="Prompt that describes the photo.")],
    to: Annotated[list[str], typer.Option(help="Prompt of the result; may be repeated.")],
    settings: EditSettings,
    run: RunSettings,
    provenance: MarkSettings,
    inversion: Method = None,
    concept: Concepts = [],  # noqa: B006
    reweight: Weights = [],  # noqa: B006
    window: Windows = [],  # noqa: B006
    blend: Blended = None,
    preserve: Kept = [],  # noqa: B006
    mask: Mask = None,
    select: SelectOption = [],  # noqa: B006
    sam: SamOption = None,
    region: RegionOption = "auto",
    seed: Seed = None,
    out: OutOption = Path("edited.png"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Edit a photo by text: prompt-to-prompt, plug-and-play, or HiPer.

    The photo is inverted first. The inversion is cached for later edits of the photo.
    """
    if inversion is not None and inversion not in METHODS:
        raise InputError(f"--inversion must be one of {', '.join(METHODS)}. Got {inversion!r}.")
    job = Job.of(
        "edit",
        settings,
        run,
        provenance,
        inversion_for(settings, run.model, inversion),
        seed=seed,
        photo=photo,
        prompt=prompt,
        to=to,
        concept=concept,
        reweight=reweight,
        window=window,
        blend=blend,
        preserve=preserve,
        mask=mask,
        region=region,
        select=select,
        sam=sam,
        out=out,
    )
    show.job(job, json)
