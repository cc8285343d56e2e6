"""The job `demo`: the main job on toys, beside the right answer, with its pictures written."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path

from understudy import demo as stages
from understudy.files.atomic import check_folder_writable, replacing
from understudy.jobs.events import Events, Result
from understudy.jobs.results import recipe_of, write_edited, write_rendered
from understudy.jobs.work import Work
from understudy.pictures.tensors import to_pixels
from understudy.settings import DemoSettings, RunSettings
from understudy.settings.marks import MarkSettings
from understudy.vision import examiner


def demo(
    work: Work,
    settings: DemoSettings,
    run: RunSettings,
    marks: MarkSettings | None = None,
    *,
    out: Path,
) -> Events[Result]:
    """Learn a toy, swap it into a scene, score it; write the pictures into the folder `out`."""
    check_folder_writable(out)
    files = [out / f"{name}.png" for name in ("sheet", "swapped", "source", "right")]
    work.writes(*files)
    started = time.perf_counter()
    scorer = examiner.load_scorer()
    case = stages.case(settings.seed, settings.photos)
    with work.model(run) as model:
        made = yield from stages.run_case(model, case, settings)
        prompts = {"prompt": case.prompt, "target_prompt": made.target_prompt}
        recipe = recipe_of(work, model, settings, run, facts=prompts, seed=settings.seed)
    scores = stages.score(made, scorer)
    seconds = time.perf_counter() - started

    # What was made, each picture with its recipe.
    shown = (stages.sheet(made, scores), made.swapped)
    for number, (file, picture) in enumerate(zip(files, shown, strict=False)):
        whole = replace(recipe, output=number)
        write_edited(file, picture, whole, marks, photo=None, keeps_photo=True)
    for number, picture in ((2, made.source), (3, made.right)):
        write_rendered(files[number], to_pixels(picture), replace(recipe, output=number))
    words = stages.table(scores)
    with replacing(out / "table.txt") as temporary:
        temporary.write_text(words + "\n", encoding="utf-8")
    numbers = {"seconds": round(seconds, 1), "out": str(out), **prompts}
    told = f"The result is in {files[0]}; the whole job took {seconds:.0f} s"
    rows = {row.name: finite(asdict(row)) for row in scores}
    return Result({**numbers, "scores": rows}, (words, told), tuple(map(str, files)))


def finite(row: dict[str, object]) -> dict[str, object]:
    """The numbers of a row that mean something: JSON knows no NaN."""
    return {name: value for name, value in row.items() if value == value}
