"""`understudy explain`: attention on a photo, and the region that a swap would change."""

from __future__ import annotations

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.cli.results import JsonOption
from understudy.cli.sources import MethodOption
from understudy.jobs.request import Job
from understudy.settings import RunSettings, SwapSettings
from understudy.settings.inputs import ExplainInputs
from understudy.settings.marks import MarkSettings
from understudy.settings.swap import inversion_for


@knobs
def explain(
    given: ExplainInputs,
    settings: SwapSettings,
    run: RunSettings,
    provenance: MarkSettings,
    method: MethodOption = "direct",
    json: JsonOption = False,
) -> None:
    """Draw the attention of the model on a photo.

    Cross-attention maps of each word, components of self-attention, the schedule of a swap, and
    with --swap the region that it may change.
    """
    inversion = inversion_for(settings, run.model, method)
    show.job(Job.of("explain", given, settings, run, provenance, inversion), json)
