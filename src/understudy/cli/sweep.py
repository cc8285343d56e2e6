"""`understudy sweep`: swaps with a grid of step counts, as one picture."""

from __future__ import annotations

from typing import Annotated

import typer

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.cli.results import JsonOption
from understudy.jobs.request import Job
from understudy.settings import METHODS, RunSettings, SwapSettings
from understudy.settings.inputs import SweepInputs
from understudy.settings.marks import MarkSettings
from understudy.settings.swap import sweep_inversion

USUAL = "Inversion method.  [default: null-text; direct on flow models]"


@knobs
def sweep(
    given: SweepInputs,
    settings: SwapSettings,
    run: RunSettings,
    provenance: MarkSettings,
    method: Annotated[str | None, typer.Option(help=USUAL, metavar="|".join(METHODS))] = None,
    json: JsonOption = False,
) -> None:
    """Swap with a grid of step counts.

    The cells share the source and all steps for which their schedules agree. If a scorer is
    available for the model, identity and layout are drawn as curves as well.
    """
    inversion = sweep_inversion(settings, run.model, method)
    show.job(Job.of("sweep", given, settings, run, provenance, inversion), json)
