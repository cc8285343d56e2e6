"""`understudy edit`: a photo is edited by text."""

from __future__ import annotations

from typing import Annotated

import typer

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.cli.results import JsonOption
from understudy.errors import InputError
from understudy.jobs.request import Job
from understudy.settings import METHODS, EditSettings, RunSettings
from understudy.settings.edit import inversion_for
from understudy.settings.inputs import EditInputs
from understudy.settings.marks import MarkSettings

Method = Annotated[
    str | None,
    typer.Option(
        help="Inversion method.  [default: null-text for p2p, else ddim]", metavar="|".join(METHODS)
    ),
]


@knobs
def edit(
    given: EditInputs,
    settings: EditSettings,
    run: RunSettings,
    provenance: MarkSettings,
    inversion: Method = None,
    json: JsonOption = False,
) -> None:
    """Edit a photo by text: prompt-to-prompt, plug-and-play, HiPer, FlowEdit and others.

    The photo is inverted first, unless the method needs no inversion. The inversion is cached for
    later edits of the photo.
    """
    if inversion is not None and inversion not in METHODS:
        raise InputError(f"--inversion must be one of {', '.join(METHODS)}. Got {inversion!r}.")
    inverting = inversion_for(settings, run.model, inversion)
    show.job(Job.of("edit", given, settings, run, provenance, inverting), json)
