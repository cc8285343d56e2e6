"""`understudy drag`: points of a picture are moved to new positions."""

from __future__ import annotations

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.cli.results import JsonOption
from understudy.jobs.request import Job
from understudy.settings.drag import DragSettings
from understudy.settings.inputs import DragInputs
from understudy.settings.marks import MarkSettings


@knobs
def drag(
    given: DragInputs,
    settings: DragSettings,
    provenance: MarkSettings,
    json: JsonOption = False,
) -> None:
    """Drag points of a picture to new positions (DragGAN).

    The picture comes from a --seed, from the --latent of a photo (see `project`), or from a saved
    --session, which continues with its own settings and, without --points, its own points. A
    session of a projected photo needs its --latent as well.
    """
    show.job(Job.of("drag", given, settings, provenance), json)
