"""`understudy learn`: the subject of a folder of photos as a concept."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.cli.results import JsonOption
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
    show.job(job, json, finish_step=True, kept=partial(_kept, folder))


def _kept(folder: Path) -> str:
    """What a stopped run left in its folder."""
    from understudy.learn.checkpoint import RunFolder

    last = RunFolder(folder, 1, {}).latest()
    if last is None:
        return "Class images drawn so far are in the cache: the same command continues with them."
    return f"Step {last.step} is kept in {last.folder}: the same command with --resume continues."
