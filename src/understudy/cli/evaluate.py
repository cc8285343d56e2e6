"""`understudy evaluate`: methods compared by the papers' protocols and on known right answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from understudy.cli import show, signals, study
from understudy.cli.loading import load_model
from understudy.cli.options import Command, knobs
from understudy.errors import ExtraMissing, InputError, ModelError
from understudy.files.atomic import check_folder_writable
from understudy.settings import RunSettings
from understudy.settings.evaluate import (
    CasesSettings,
    DragTableSettings,
    DreamBoothSettings,
    EyesSettings,
    SwapBenchSettings,
)

if TYPE_CHECKING:
    import torch

    from understudy.evaluate.bench import Bench
    from understudy.evaluate.report import Report
    from understudy.evaluate.stage import Stage
    from understudy.vision.features import Eyes

TOY_METHODS = "right-answer,no-swap,copy-paste,plain-generation,photoswap-paper"
PHOTO_METHODS = "no-swap,plain-generation,photoswap-paper,photoswap-best"
app = typer.Typer(
    name="evaluate",
    help="Compare methods by the papers' protocols, with confidence intervals.",
    no_args_is_help=True,
)
app.add_typer(study.app, name="study")
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")]
Told = Annotated[
    list[str],
    typer.Option("--set", help="VERB.SETTING=VALUE, like learn.steps=200; may be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command(cls=Command)
@knobs
def swap(
    settings: SwapBenchSettings,
    run: RunSettings,
    folder: Annotated[
        Path | None,
        typer.Argument(help="Folder of real cases in the format of `cases`; without it SwapBench."),
    ] = None,
    methods: Annotated[
        str, typer.Option(help="Names separated by commas; 'list' prints them.")
    ] = "",
    outside: Annotated[
        list[str],
        typer.Option(help="NAME=FOLDER of PNGs, one per case (003-shape.png); may be repeated."),
    ] = [],  # noqa: B006
    told: Told = [],  # noqa: B006
    resume: Resume = False,
    out: Annotated[Path, typer.Option(help="The folder of results.")] = Path("swapbench"),
    json: Json = False,
) -> None:
    """SwapBench: swaps whose right answers are known; or swaps between your own photos.

    One row a case and method the moment it is done, then report.md, report.csv and report.html,
    and all pictures side by side on sheet-0.png, sheet-1.png and so on.
    """
    from understudy.evaluate.methods import METHODS

    if methods == "list":
        show.result({k: m.says for k, m in METHODS.items()}, json, *_listed(METHODS))
        return
    check_folder_writable(out)
    from understudy.evaluate.protocols import swap as protocol
    from understudy.evaluate.results import Run
    from understudy.evaluate.stage import pick
    from understudy.pictures.photo import write_pixels

    usual = PHOTO_METHODS if folder else TOY_METHODS
    names = [] if methods == "none" else pick(methods or usual, METHODS)
    folders = dict(_outside(word) for word in outside)
    if not names and not folders:
        raise InputError("--methods none needs at least one --outside NAME=FOLDER.")
    needed = any(METHODS[name].listens for name in names)
    acting = _stage(run, told, out) if needed else None
    bench, where = _bench(folder, settings, acting), Run(out)
    steps = protocol.evaluation_steps(
        where, bench, names, acting, folders, shard=settings.shard, resume=resume
    )
    for _ in show.follow(steps, "Evaluating", signals.ROWS.format(out)):
        pass
    for number, sheet in enumerate(protocol.all_cases(where, bench)):
        write_pixels(out / f"sheet-{number}.png", sheet)
    _finish(protocol.summed(where, bench), out, json)


def _bench(folder: Path | None, settings: SwapBenchSettings, acting: Stage | None) -> Bench:
    from understudy.evaluate.photo_bench import PhotoBench
    from understudy.evaluate.toy_bench import ToyBench
    from understudy.vision.examiner import load_scorer

    if folder is None:
        return ToyBench(settings, load_scorer())
    if acting is None:
        return PhotoBench(folder, settings, _eyes(settings, "cpu"), 512)
    size = min(acting.model.picture_size)
    return PhotoBench(folder, settings, _eyes(settings, acting.model.device), size)


@app.command(cls=Command)
@knobs
def dreambooth(
    data: Annotated[str, typer.Argument(help="Folder of the data set, or 'toybox'.")],
    settings: DreamBoothSettings,
    run: RunSettings,
    methods: Annotated[
        str, typer.Option(help="Names separated by commas; 'list' prints them.")
    ] = "untuned,dreambooth",
    told: Told = [],  # noqa: B006
    resume: Resume = False,
    out: Annotated[Path, typer.Option(help="The folder of results.")] = Path("dreambooth"),
    json: Json = False,
) -> None:
    """The DreamBooth protocol on its data set, or on toys.

    One row a subject, prompt and method the moment it is done; then the report, and a sheet of
    pictures for each subject, sheet-NAME.png.
    """
    from understudy.evaluate.learners import LEARNERS

    if methods == "list":
        show.result({k: m.says for k, m in LEARNERS.items()}, json, *_listed(LEARNERS))
        return
    check_folder_writable(out)
    from understudy.evaluate.dreambench import read_data_set, write_toy_set
    from understudy.evaluate.protocols import dreambooth as protocol
    from understudy.evaluate.protocols.dreambooth_report import subject_sheets, summed
    from understudy.evaluate.results import Run
    from understudy.evaluate.stage import pick
    from understudy.pictures.photo import write_pixels

    names, where = pick(methods, LEARNERS), Path(data)
    if data == "toybox":
        where = write_toy_set(out / "toys", settings.subjects or 8, 128)
    found = read_data_set(where)
    found = replace(found, subjects=found.subjects[: settings.subjects or None])
    results, acting = Run(out), _stage(run, told, out)
    eyes = _eyes(settings, acting.model.device)
    steps = protocol.evaluation_steps(results, settings, found, eyes, acting, names, resume=resume)
    for _ in show.follow(steps, "Evaluating", signals.ROWS.format(out)):
        pass
    for name, sheet in subject_sheets(results, found.subjects):
        write_pixels(out / f"sheet-{name}.png", sheet)
    _finish(summed(results, found.notes), out, json)


def _eyes(settings: EyesSettings, device: torch.device | str) -> Eyes:
    from understudy.vision.features import ClipFeatures, DinoFeatures, Eyes, ToyFeatures
    from understudy.vision.perceptual import RecogniserFeatures, between, measure

    if settings.eyes == "toys":
        from understudy.vision.examiner import load_scorer

        ruler = ToyFeatures(load_scorer())
        far = between(RecogniserFeatures(ruler.ruler))
        return Eyes(
            {"identity": ruler}, ruler, "prompt words", far, f"features of the {ruler.ruler.name}"
        )
    try:
        far = between(measure("lpips"))
    except (ExtraMissing, ModelError) as error:
        show.note(f"{error} DIV is left out.")
        far = None
    from understudy.vision.encoders import load_clip, load_dino

    clip = ClipFeatures(load_clip(settings.clip, device=device))
    dino = DinoFeatures(load_dino(settings.dino, device=device))
    return Eyes({"DINO": dino, "CLIP-I": clip}, clip, "CLIP-T", far)


@app.command(cls=Command)
@knobs
def drag(
    *,
    generator: Annotated[str, typer.Option(help="toybox-gan, or a generator's folder.")] = (
        "toybox-gan"
    ),
    settings: DragTableSettings,
    methods: Annotated[
        str, typer.Option(help="Names separated by commas; default: all; 'list' prints them.")
    ] = "",
    tracker_weights: Annotated[
        Path | None,
        typer.Option(
            help="Also evaluate the tracker raft, with these weights (torchvision's raft_large)."
        ),
    ] = None,
    resume: Resume = False,
    out: Annotated[Path, typer.Option(help="The folder of results.")] = Path("dragtable"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    json: Json = False,
) -> None:
    """DragGAN's tables: landmarks of one toy face dragged to those of another.

    One row a pair, number of points and method the moment it is done; then the report, and the
    first cases side by side on sheet-0.png, one a number of points.
    """
    from understudy.evaluate.protocols import drag as protocol
    from understudy.evaluate.protocols.drag_report import summed
    from understudy.evaluate.protocols.drag_studies import STUDIES

    study = STUDIES[settings.study]
    if tracker_weights is not None:
        study = protocol.with_raft(study, tracker_weights, device)
    if methods == "list":
        said = {name: method.says for name, method in study.methods.items()}
        show.result(said, json, *_listed(study.methods))
        return
    check_folder_writable(out)
    from understudy.evaluate.results import Run
    from understudy.evaluate.stage import pick
    from understudy.generators.folder import load_generator, stylegan2
    from understudy.pictures.photo import write_pixels
    from understudy.pictures.sheet import contact_sheet
    from understudy.vision.examiner import load_scorer
    from understudy.vision.landmarks import load as load_finder

    names, where = pick(methods or ",".join(study.methods), study.methods), Run(out)
    model = stylegan2(load_generator(generator, device=device))
    finder = load_finder(device=model.device)
    steps = protocol.evaluation_steps(where, study, settings, model, finder, names, resume=resume)
    for _ in show.follow(steps, "Evaluating", signals.ROWS.format(out)):
        pass
    report = summed(where, study, model, load_scorer())
    for number, sheet in enumerate(report.sheets):
        write_pixels(out / f"sheet-{number}.png", contact_sheet(sheet.rows, side=128))
    _finish(report, out, json)


@app.command(cls=Command)
@knobs
def cases(
    settings: CasesSettings,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("swapbench-cases"),
    json: Json = False,
) -> None:
    """Write SwapBench's cases for a method elsewhere.

    Its answers, one PNG a case, are scored by: evaluate swap --outside NAME=FOLDER.
    """
    check_folder_writable(out)
    from understudy.evaluate.protocols.swap import write_cases

    last = show.last(write_cases(out, settings), "Writing cases", f"Finished cases are in {out}.")
    show.result({"cases": last.total, "out": str(out)}, json, f"{last.total} cases in {out}")


def _listed(methods: Any) -> list[str]:
    return [f"{name:20} {method.says}" for name, method in methods.items()]


def _outside(word: str) -> tuple[str, Path]:
    name, equals, folder = word.partition("=")
    if not (name and equals and folder):
        raise InputError(f"--outside must be NAME=FOLDER. Got {word!r}.")
    if not Path(folder).is_dir():
        raise InputError(f"--outside {name}: there is no folder {folder}.")
    return name, Path(folder)


def _stage(run: RunSettings, told: list[str], out: Path) -> Stage:
    from understudy.evaluate.stage import Stage
    from understudy.evaluate.stage import told as checked

    said = checked(told)
    return Stage(load_model(run), said, out / "made")


def _finish(report: Report, out: Path, json: bool) -> None:
    """Write the report and show its first table."""
    from understudy.evaluate.report import markdown

    files = [str(file) for file in report.write(out)]
    show.note(*report.warnings[:20])
    tables = {
        t.title: [dict(zip(t.heads, line, strict=False)) for line in t.lines] for t in report.tables
    }
    show.result(
        {"report": files, "warnings": list(report.warnings), "tables": tables},
        json,
        markdown(report).split("## Made with")[0].strip(),
        *files,
    )
