"""`understudy generate`: pictures of a prompt and the concepts in it."""

from __future__ import annotations

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.cli.results import JsonOption
from understudy.jobs.request import Job
from understudy.settings import GenerateSettings, RunSettings
from understudy.settings.inputs import GenerateInputs
from understudy.settings.marks import MarkSettings


@knobs
def generate(
    given: GenerateInputs,
    settings: GenerateSettings,
    run: RunSettings,
    provenance: MarkSettings,
    json: JsonOption = False,
) -> None:
    """Generate pictures from a prompt.

    {rex} in the prompt stands for the concept named rex; a missing article is added.
    """
    show.job(Job.of("generate", given, settings, run, provenance), json)
