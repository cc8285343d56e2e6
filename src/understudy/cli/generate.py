"""`understudy generate`: a prompt, and concepts in it, to pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.jobs.request import Job
from understudy.settings import GenerateSettings, RunSettings
from understudy.settings.marks import MarkSettings


@knobs
def generate(
    prompt: Annotated[str, typer.Argument(help='Like "a photo of {rex} in the snow".')],
    settings: GenerateSettings,
    run: RunSettings,
    provenance: MarkSettings,
    out: Annotated[
        Path, typer.Option(help="A folder, or a .png, .jpg or .webp for one picture.")
    ] = Path("out"),
    concept: Annotated[
        list[str], typer.Option(help="Concept, by name or folder; may be repeated.")
    ] = [],  # noqa: B006
    count: Annotated[int, typer.Option(help="Number of pictures.")] = 1,
    init: Annotated[
        Path | None, typer.Option(help="Begin with this photo, noised; see --strength.")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the first picture; the following ones count up.")
    ] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Generate pictures from a prompt.

    {rex} in the prompt stands for the concept named rex; a missing article is added.
    """
    inputs = {"prompt": prompt, "out": out, "concept": concept, "count": count, "init": init}
    show.job(Job.of("generate", settings, run, provenance, seed=seed, **inputs), json)
