"""`understudy swap`: subjects of a photo are replaced by concepts."""

from __future__ import annotations

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.cli.results import JsonOption
from understudy.cli.sources import SuitedMethodOption
from understudy.jobs.request import Job
from understudy.settings import RunSettings, SwapSettings
from understudy.settings.inputs import SwapInputs
from understudy.settings.marks import MarkSettings
from understudy.settings.swap import inversion_for


@knobs
def swap(
    given: SwapInputs,
    settings: SwapSettings,
    run: RunSettings,
    provenance: MarkSettings,
    method: SuitedMethodOption = None,
    json: JsonOption = False,
) -> None:
    """Replace subjects of a photo with concepts, keeping pose and background (Photoswap).

    The photo is inverted first. Inversion and features are cached for later swaps of the photo.
    """
    inversion = inversion_for(settings, run.model, method)
    show.job(Job.of("swap", given, settings, run, provenance, inversion), json)
