"""`understudy demo`: the main job on toys, beside the right answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.cli.results import JsonOption
from understudy.jobs.request import Job
from understudy.settings import DemoSettings, RunSettings
from understudy.settings.marks import MarkSettings


@knobs
def demo(
    settings: DemoSettings,
    run: RunSettings,
    provenance: MarkSettings,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("demo_out"),
    json: JsonOption = False,
) -> None:
    """Learn a toy, swap it into a scene, and compare with the right answer.

    The toy was not in the model's training data. The toy world renders the right answer. Writes
    sheet.png, the single pictures and table.txt.
    """
    job = Job.of("demo", settings, run, provenance, out=out)
    show.job(job, json, kept=lambda _: "A demo saves no intermediate results.")
