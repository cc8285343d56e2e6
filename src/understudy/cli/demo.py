"""`understudy demo`: the main job on toys, beside the right answer."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from understudy.cli import show, stage
from understudy.cli.options import knobs
from understudy.files.atomic import check_folder_writable
from understudy.settings import DemoSettings, RunSettings


@knobs
def demo(
    settings: DemoSettings,
    run: RunSettings,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("demo_out"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Learn a toy, swap it into a photo, compare.

    A toy the model has never seen takes another toy's place in a picture; the toy world knows
    what that should look like. Writes sheet.png, the pictures alone, and table.txt.
    """
    check_folder_writable(out)
    started = time.perf_counter()
    from understudy import demo as stages
    from understudy.files.atomic import replacing
    from understudy.pictures.photo import write_pixels
    from understudy.pictures.tensors import write_picture
    from understudy.vision.recogniser import load as load_ruler

    model = stage.load_model(run)
    ruler = load_ruler()
    made = stages.perform(model, stages.case(settings.seed, settings.photos), settings, show.last)
    scores = stages.score(made, ruler)
    seconds = time.perf_counter() - started

    # What was made, each picture with its recipe.
    prompts = {"prompt": made.case.prompt, "target_prompt": made.target_prompt}
    recipe = stage.made_by("demo", model, (settings, run), arguments=prompts, seed=settings.seed)
    text = recipe.to_text()
    write_pixels(out / "sheet.png", stages.sheet(made, scores), text)
    for name in ("source", "swapped", "right"):
        write_picture(out / f"{name}.png", getattr(made, name), text)
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
