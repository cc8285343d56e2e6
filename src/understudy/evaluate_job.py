"""The jobs `evaluate swap`, `dreambooth`, `drag` and `cases`: rows, then a report and sheets.

Each makes its rows one by one; a stopped job continues from the rows that are there (`resume`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from understudy.errors import ExtraMissing, InputError, ModelError
from understudy.evaluate.bench import Bench
from understudy.evaluate.dreambench import read_data_set, write_toy_set
from understudy.evaluate.learners import LEARNERS
from understudy.evaluate.methods import METHODS
from understudy.evaluate.photo_bench import PhotoBench
from understudy.evaluate.protocols import drag as drags
from understudy.evaluate.protocols import drag_report, dreambooth_report
from understudy.evaluate.protocols import dreambooth as dreambooths
from understudy.evaluate.protocols import swap as swaps
from understudy.evaluate.protocols.drag_studies import STUDIES
from understudy.evaluate.report import Report, markdown
from understudy.evaluate.results import ResultsFolder
from understudy.evaluate.setup import Setup, pick
from understudy.evaluate.setup import told as checked
from understudy.evaluate.toy_bench import ToyBench
from understudy.files.atomic import check_folder_writable
from understudy.generators.folder import stylegan2
from understudy.jobs.events import Events, Result, watched
from understudy.jobs.work import Work
from understudy.pictures.photo import Pixels, write_pixels
from understudy.pictures.sheet import contact_sheet
from understudy.settings import RunSettings
from understudy.settings.evaluate import (
    CasesSettings,
    DragTableSettings,
    DreamBoothSettings,
    ScorerSettings,
    SwapBenchSettings,
)
from understudy.vision.encoders import load_clip, load_dino
from understudy.vision.examiner import load_scorer
from understudy.vision.features import ClipFeatures, DinoFeatures, FeatureScorers, ToyFeatures
from understudy.vision.landmarks import load as load_finder
from understudy.vision.perceptual import RecogniserFeatures, between, measure

TOY_METHODS = "right-answer,no-swap,copy-paste,plain-generation,photoswap-paper"
PHOTO_METHODS = "no-swap,plain-generation,photoswap-paper,photoswap-best"
PHOTO_SIDE = 512  # pixels, where no model says what it wants
TITLE = "Evaluating"
WARNINGS = 20  # of a report that are shown; all are in the report


def evaluate_swap(
    work: Work,
    settings: SwapBenchSettings,
    run: RunSettings,
    *,
    out: Path,
    folder: Path | None = None,
    methods: str = "",
    outside: list[str] = [],  # noqa: B006
    told: list[str] = [],  # noqa: B006
    resume: bool = False,
) -> Events[Result]:
    """Answer and score swaps, of SwapBench or of a folder of real cases, by each method."""
    if folder is not None and not folder.is_dir():
        raise InputError(f"There is no folder {folder}. Check the path.")
    check_folder_writable(out)
    usual = PHOTO_METHODS if folder else TOY_METHODS
    names = [] if methods == "none" else pick(methods or usual, METHODS)
    folders = dict(_outside(word) for word in outside)
    if not names and not folders:
        raise InputError("--methods none needs at least one --outside NAME=FOLDER.")
    said, results = checked(told), ResultsFolder(out)
    with ExitStack() as stack:
        setup = None
        if any(METHODS[name].listens for name in names):
            setup = Setup(stack.enter_context(work.model(run)), said, out / "made")
        bench = _bench(work, folder, settings, setup)
        steps = swaps.evaluation_steps(
            results, bench, names, setup, folders, shard=settings.shard, resume=resume
        )
        yield from watched(steps, TITLE, kept=partial(_kept, out))
    sheets = {str(number): one for number, one in enumerate(swaps.all_cases(results, bench))}
    return _reported(work, swaps.summed(results, bench), out, sheets)


def evaluate_dreambooth(
    work: Work,
    settings: DreamBoothSettings,
    run: RunSettings,
    *,
    data: str,
    out: Path,
    methods: str = "untuned,dreambooth",
    told: list[str] = [],  # noqa: B006
    resume: bool = False,
) -> Events[Result]:
    """Learn subjects by each method, draw each prompt, and score the pictures.

    data: the folder of the data set, or "toybox".
    """
    check_folder_writable(out)
    names, said, where = pick(methods, LEARNERS), checked(told), Path(data)
    if data == "toybox":
        where = write_toy_set(out / "toys", settings.subjects or 8, 128)
    found = read_data_set(where)
    found = replace(found, subjects=found.subjects[: settings.subjects or None])
    results = ResultsFolder(out)
    with work.model(run) as model:
        scorers = _scorers(work, settings, model.device)
        setup = Setup(model, said, out / "made")
        steps = dreambooths.evaluation_steps(
            results, settings, found, scorers, setup, names, resume=resume
        )
        yield from watched(steps, TITLE, kept=partial(_kept, out))
    sheets = dict(dreambooth_report.subject_sheets(results, found.subjects))
    return _reported(work, dreambooth_report.summed(results, found.notes), out, sheets)


def evaluate_drag(
    work: Work,
    settings: DragTableSettings,
    *,
    out: Path,
    generator: str = "toybox-gan",
    methods: str = "",
    tracker_weights: Path | None = None,
    resume: bool = False,
    device: str = "auto",
) -> Events[Result]:
    """Drag landmarks of toy faces by each method of a study, and measure where they arrive."""
    study = STUDIES[settings.study]
    if tracker_weights is not None:
        study = drags.with_raft(study, tracker_weights, device)
    check_folder_writable(out)
    names, results = pick(methods or ",".join(study.methods), study.methods), ResultsFolder(out)
    model = stylegan2(work.generator(generator, device))
    finder = load_finder(device=model.device)
    steps = drags.evaluation_steps(results, study, settings, model, finder, names, resume=resume)
    yield from watched(steps, TITLE, kept=partial(_kept, out))
    report = drag_report.summed(results, study, model, load_scorer())
    drawn = [contact_sheet(sheet.rows, side=128) for sheet in report.sheets]
    return _reported(work, report, out, {str(number): one for number, one in enumerate(drawn)})


def evaluate_cases(work: Work, settings: CasesSettings, *, out: Path) -> Events[Result]:
    """Write the cases of SwapBench, for methods of other programs."""
    check_folder_writable(out)
    steps = swaps.write_cases(out, settings)
    last = yield from watched(steps, "Writing cases", kept=lambda: f"Finished cases are in {out}.")
    return Result({"cases": last.total, "out": str(out)}, (f"{last.total} cases in {out}",))


def _kept(out: Path) -> str:
    return f"Finished rows are in {out}. To continue, add --resume."


def _outside(word: str) -> tuple[str, Path]:
    """ "NAME=FOLDER" of results of another program."""
    name, equals, folder = word.partition("=")
    if not (name and equals and folder):
        raise InputError(f"--outside must be NAME=FOLDER. Got {word!r}.")
    if not Path(folder).is_dir():
        raise InputError(f"--outside {name}: there is no folder {folder}.")
    return name, Path(folder)


def _bench(
    work: Work, folder: Path | None, settings: SwapBenchSettings, setup: Setup | None
) -> Bench:
    if folder is None:
        return ToyBench(settings, load_scorer())
    if setup is None:
        return PhotoBench(folder, settings, _scorers(work, settings, "cpu"), PHOTO_SIDE)
    scorers = _scorers(work, settings, setup.model.device)
    return PhotoBench(folder, settings, scorers, min(setup.model.picture_size))


def _scorers(work: Work, settings: ScorerSettings, device: torch.device | str) -> FeatureScorers:
    """The networks that measure similarity."""
    if settings.scorer == "toys":
        scorer = ToyFeatures(load_scorer())
        far = between(RecogniserFeatures(scorer.recogniser))
        what = f"features of the {scorer.recogniser.name}"
        return FeatureScorers({"identity": scorer}, scorer, "prompt words", far, what)
    try:
        far = between(measure("lpips"))
    except (ExtraMissing, ModelError) as error:
        work.note(f"DIV is left out: {error}")
        far = None
    try:
        clip = ClipFeatures(load_clip(settings.clip_model, device=device))
        dino = DinoFeatures(load_dino(settings.dino_model, device=device))
    except ModelError as error:
        raise ModelError(f"--scorer papers: {error} --scorer toys needs no download.") from error
    return FeatureScorers({"DINO": dino, "CLIP-I": clip}, clip, "CLIP-T", far)


def _reported(work: Work, report: Report, out: Path, sheets: Mapping[str, Pixels]) -> Result:
    """Write the report and its sheets; the result shows the first table."""
    drawn: list[str] = []
    for name, sheet in sheets.items():
        write_pixels(out / f"sheet-{name}.png", sheet)
        drawn.append(str(out / f"sheet-{name}.png"))
    files = [str(file) for file in report.write(out)]
    work.note(*report.warnings[:WARNINGS])
    tables: dict[str, Any] = {
        table.title: [dict(zip(table.heads, line, strict=False)) for line in table.lines]
        for table in report.tables
    }
    values = {"report": files, "warnings": list(report.warnings), "tables": tables}
    shown = markdown(report).split("## Made with")[0].strip()
    return Result(values, (shown, *files), (*files, *drawn))
