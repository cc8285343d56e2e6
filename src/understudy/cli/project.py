"""`understudy project`: a photo as a latent of a generator."""

from __future__ import annotations

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.cli.results import JsonOption
from understudy.jobs.request import Job
from understudy.settings.inputs import ProjectInputs
from understudy.settings.marks import MarkSettings
from understudy.settings.project import ProjectSettings


@knobs
def project(
    given: ProjectInputs,
    settings: ProjectSettings,
    provenance: MarkSettings,
    json: JsonOption = False,
) -> None:
    """Find the latent of a photo and tune the generator on it (pivotal tuning inversion).

    A stopped run continues from its last checkpoint when the command is repeated.
    """
    show.job(Job.of("project", given, settings, provenance), json)
