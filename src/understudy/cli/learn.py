"""`understudy learn`: the subject of a folder of photos as a concept."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.cli.results import JsonOption
from understudy.jobs.events import Progress
from understudy.jobs.request import Job
from understudy.settings import LearnSettings, RunSettings
from understudy.settings.inputs import LearnInputs


@knobs
def learn(
    given: LearnInputs,
    settings: LearnSettings,
    run: RunSettings,
    json: JsonOption = False,
) -> None:
    """Learn the subject of a few photos as a concept.

    NAME.txt beside NAME.jpg is its caption, NAME.mask.png its mask.
    After Ctrl-C the last checkpoint is kept; --resume continues.
    """
    folder = given.out or Path("concepts") / given.name
    job = Job.of("learn", given, settings, run)
    show.job(job, json, finish_step=True, kept=partial(_kept, folder, given.resume))


def _kept(folder: Path, resume: bool, last: Progress | None) -> str:
    """What a stopped run left behind: its checkpoint, else what its last progress says.

    A new run removes the checkpoints of a finished one when it begins to train. Before that they
    are not its own.
    """
    from understudy.jobs.learn import LEARNING
    from understudy.learn.checkpoint import RunFolder

    begun = resume or (last is not None and last.phase.startswith(LEARNING))
    found = RunFolder(folder, 1, {}).latest() if begun else None
    if found is None:
        return "" if last is None else last.kept
    return f"Step {found.step} is saved in {found.folder}. To continue, add --resume."
