"""`understudy demo`: the main job on toys, beside the right answer."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from understudy.cli import show, stage
from understudy.cli.options import knobs
from understudy.files.atomic import check_folder_writable
from understudy.jobs import results
from understudy.settings import DemoSettings, RunSettings
from understudy.settings.marks import MarkSettings


@knobs
def demo(
    settings: DemoSettings,
    run: RunSettings,
    provenance: MarkSettings,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("demo_out"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Learn a toy, swap it into a scene, and compare with the right answer.

    The toy was not in the model's training data. The toy world renders the right answer. Writes
    sheet.png, the single pictures and table.txt.
    """
    check_folder_writable(out)
    started = time.perf_counter()
    from understudy import demo as stages
    from understudy.files.atomic import replacing
    from understudy.pictures.tensors import to_pixels
    from understudy.vision.examiner import load_scorer

    model = stage.load_model(run)
    scorer = load_scorer()
    made = stages.perform(model, stages.case(settings.seed, settings.photos), settings, show.last)
    scores = stages.score(made, scorer)
    seconds = time.perf_counter() - started

    # What was made, each picture with its recipe.
    prompts = {"prompt": made.case.prompt, "target_prompt": made.target_prompt}
    recipe = stage.made_by("demo", model, (settings, run), arguments=prompts, seed=settings.seed)
    write = partial(results.write_edited, marks=provenance, photo=None, keeps_photo=True)
    write(out / "sheet.png", stages.sheet(made, scores), recipe)
    write(out / "swapped.png", made.swapped, recipe)
    for name in ("source", "right"):
        results.write_rendered(out / f"{name}.png", to_pixels(getattr(made, name)), recipe)
    words = stages.table(scores)
    with replacing(out / "table.txt") as temporary:
        temporary.write_text(words + "\n", encoding="utf-8")
    numbers = {"seconds": round(seconds, 1), "out": str(out), **prompts}
    rows = {row.name: stage.finite(asdict(row)) for row in scores}
    show.result(
        {**numbers, "scores": rows},
        json,
        words,
        f"{out / 'sheet.png'} shows it; the whole job took {seconds:.0f} s",
    )
