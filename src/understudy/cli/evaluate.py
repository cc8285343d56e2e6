"""`understudy evaluate`: methods compared by the papers' protocols and on known right answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from understudy.cli import show, study
from understudy.cli.options import Command, knobs
from understudy.cli.results import JsonOption
from understudy.jobs.request import Job
from understudy.settings import RunSettings
from understudy.settings.evaluate import (
    CasesSettings,
    DragTableSettings,
    DreamBoothSettings,
    SwapBenchSettings,
)

app = typer.Typer(
    name="evaluate",
    help="Compare methods by the papers' protocols, with confidence intervals.",
    no_args_is_help=True,
)
app.add_typer(study.app, name="study")
Methods = Annotated[str, typer.Option(help="Names separated by commas; 'list' prints them.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")]
Told = Annotated[
    list[str],
    typer.Option("--set", help="VERB.SETTING=VALUE, like learn.steps=200; may be repeated."),
]


@app.command(cls=Command)
@knobs
def swap(
    settings: SwapBenchSettings,
    run: RunSettings,
    folder: Annotated[
        Path | None,
        typer.Argument(help="Folder of real cases in the format of `cases`; without it SwapBench."),
    ] = None,
    methods: Methods = "",
    outside: Annotated[
        list[str],
        typer.Option(
            help="NAME=FOLDER: results of another program, one PNG per case (003-shape.png). "
            "May be repeated."
        ),
    ] = [],  # noqa: B006
    told: Told = [],  # noqa: B006
    resume: Resume = False,
    out: Annotated[Path, typer.Option(help="The folder of results.")] = Path("swapbench"),
    json: JsonOption = False,
) -> None:
    """SwapBench: swaps whose right answers are known; or swaps between your own photos.

    Each case and method gives a row, which is written at once. At the end report.md, report.csv and
    report.html are written, and all pictures side by side as sheet-0.png, sheet-1.png and so on.
    """
    if methods == "list":
        from understudy.evaluate.methods import METHODS

        return _list(METHODS, json)
    inputs: dict[str, Any] = {
        "folder": folder,
        "methods": methods,
        "outside": outside,
        "told": told,
    }
    job = Job.of("evaluate swap", settings, run, resume=resume, out=out, **inputs)
    show.job(job, json)


@app.command(cls=Command)
@knobs
def dreambooth(
    data: Annotated[str, typer.Argument(help="Folder of the data set, or 'toybox'.")],
    settings: DreamBoothSettings,
    run: RunSettings,
    methods: Methods = "untuned,dreambooth",
    told: Told = [],  # noqa: B006
    resume: Resume = False,
    out: Annotated[Path, typer.Option(help="The folder of results.")] = Path("dreambooth"),
    json: JsonOption = False,
) -> None:
    """The DreamBooth protocol on its data set, or on toys.

    Each subject, prompt and method gives a row, which is written at once. At the end the report is
    written, and a sheet of pictures for each subject, sheet-NAME.png.
    """
    if methods == "list":
        from understudy.evaluate.learners import LEARNERS

        return _list(LEARNERS, json)
    inputs: dict[str, Any] = {
        "data": data,
        "methods": methods,
        "told": told,
        "resume": resume,
        "out": out,
    }
    show.job(Job.of("evaluate dreambooth", settings, run, **inputs), json)


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
    device: Annotated[
        str, typer.Option(help="Where to run: auto, cpu, cuda, cuda:1 or mps.")
    ] = "auto",
    json: JsonOption = False,
) -> None:
    """DragGAN's tables: landmarks of one toy face dragged to those of another.

    Each pair, number of points and method gives a row, which is written at once. At the end the
    report is written, and the first cases side by side as sheet-0.png, one per number of points.
    """
    if methods == "list":
        from understudy.evaluate.protocols.drag import with_raft
        from understudy.evaluate.protocols.drag_studies import STUDIES

        known = STUDIES[settings.study]
        known = with_raft(known, tracker_weights, device) if tracker_weights else known
        return _list(known.methods, json)
    inputs: dict[str, Any] = {
        "generator": generator,
        "methods": methods,
        "tracker_weights": tracker_weights,
    }
    inputs |= {"resume": resume, "out": out, "device": device}
    show.job(Job.of("evaluate drag", settings, **inputs), json)


@app.command(cls=Command)
@knobs
def cases(
    settings: CasesSettings,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("swapbench-cases"),
    json: JsonOption = False,
) -> None:
    """Write SwapBench's cases, for methods of other programs.

    To score such a method, save its results as one PNG per case and run: evaluate swap --outside
    NAME=FOLDER.
    """
    show.job(Job.of("evaluate cases", settings, out=out), json)


def _list(methods: Any, json: bool) -> None:
    """Print the names of methods and what they do."""
    said = {name: method.says for name, method in methods.items()}
    show.result(said, json, *(f"{name:20} {says}" for name, says in said.items()))
