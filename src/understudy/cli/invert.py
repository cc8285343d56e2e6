"""`understudy invert`: the noise from which a model draws a photo."""

from __future__ import annotations

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.cli.results import JsonOption
from understudy.jobs.request import Job
from understudy.settings import InvertSettings, RunSettings
from understudy.settings.inputs import InvertInputs


@knobs
def invert(
    given: InvertInputs,
    settings: InvertSettings,
    run: RunSettings,
    json: JsonOption = False,
) -> None:
    """Invert a photo: find the noise from which the model draws it."""
    show.job(Job.of("invert", given, settings, run), json)
