"""`understudy evaluate study`: blind comparisons of results by people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.cli import show
from understudy.cli.options import Command, knobs
from understudy.cli.results import JsonOption
from understudy.errors import InputError
from understudy.files.atomic import check_folder_writable
from understudy.settings.evaluate import StudySettings

app = typer.Typer(
    name="study", help="Studies in which people compare results blindly.", no_args_is_help=True
)
Folder = Annotated[Path, typer.Argument(help="The folder of the study.")]


@app.command(cls=Command)
@knobs
def make(
    results: Annotated[
        Path, typer.Argument(help="Result folder of `evaluate swap` or `evaluate dreambooth`.")
    ],
    settings: StudySettings,
    methods: Annotated[
        str, typer.Option(help="Names separated by commas; empty: all but the controls.")
    ] = "",
    tasks: Annotated[
        str, typer.Option(help="Questions, like subject,background; empty: the papers' questions.")
    ] = "",
    data: Annotated[
        Path | None,
        typer.Option(help="The data set of `evaluate dreambooth`, or the cases with photos."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder of the study.")] = Path("study"),
    json: JsonOption = False,
) -> None:
    """Build the questions: two results of a case side by side.

    References, random sides, repeats and control questions follow the papers' studies.
    """
    check_folder_writable(out)
    from understudy.evaluate.setup import pick
    from understudy.evaluate.study import contests, questions

    found, known = contests.contests(results, methods, data)
    asked = tuple(pick(tasks, known, "--tasks")) if tasks else known
    study = questions.make(out, found, asked, settings)
    count, sheets = sum(map(len, study.sheets)), len(study.sheets)
    needed = sheets * study.raters
    facts = {"study": str(out), "questions": count, "sheets": sheets, "raters_needed": needed}
    words = f"{count} questions in {sheets} sheets; {needed} raters answer all of them."
    show.result(facts, json, words, f"Start it with: understudy evaluate study serve {out}")


@app.command()
def serve(
    study: Folder,
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8300,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on: 127.0.0.1 for this machine only, 0.0.0.0 for the network."
        ),
    ] = "127.0.0.1",
) -> None:
    """Serve the questions as a page, until Ctrl-C.

    Each answer is saved before the next question is shown.
    """
    from understudy.evaluate.study.hosts import opened
    from understudy.evaluate.study.server import StudyServer

    with StudyServer(study, host=host, port=port) as server:
        address = opened(host, server.server_address[1])
        typer.echo(f"{address}  (Ctrl-C stops the server; no vote is lost)")
        server.serve_forever()


@app.command()
def tally(
    study: Folder,
    keep_careless: Annotated[
        bool, typer.Option("--keep-careless", help="Include raters who failed a control question.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Count the votes: majority, agreement, the papers' table."""
    from understudy.evaluate.report import markdown
    from understudy.evaluate.study.questions import read
    from understudy.evaluate.study.server import VOTES
    from understudy.evaluate.study.tally import report
    from understudy.evaluate.study.votes import Votes

    asked = read(study)
    if not (study / VOTES).is_file():
        raise InputError(f"{study} has no votes yet. Serve it: understudy evaluate study serve.")
    found = report(asked, Votes(study / VOTES, asked).all(), keep_careless=keep_careless)
    files = [str(file) for file in found.write(study)]
    table = found.tables[0]
    facts = {"report": files, "warnings": list(found.warnings), "heads": list(table.heads)}
    show.note(*found.warnings)
    show.result(
        {**facts, "lines": [list(line) for line in table.lines]},
        json,
        markdown(found).split("## Made with")[0].strip(),
        *files,
    )
