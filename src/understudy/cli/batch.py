"""`understudy batch`: many jobs from a table, on this machine or on a Ray cluster."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from understudy.cli import show
from understudy.cli.results import JsonOption
from understudy.errors import InputError

FORMATS = ("png", "jpg", "webp")
SCORES = ("psnr", "ssim")


def batch(
    table: Annotated[
        str, typer.Argument(help="Jobs as .jsonl, .csv or .parquet; path or address.")
    ],
    out: Annotated[str, typer.Option(help="Folder of results; a path or an address like s3://.")],
    template: Annotated[
        str | None,
        typer.Option(help="JSON file: a job in which $NAME stands for a column of the table."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Number of worker processes, or of actors with --ray. 0: in this process.",
            show_default="one per GPU; without a GPU 1, or with --ray one per CPU",
            min=0,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(help="Address of a Ray cluster; auto: this machine's; local: a new one."),
    ] = None,
    threads: Annotated[
        int, typer.Option(help="CPU threads per worker. Another number changes rounding.", min=1)
    ] = 1,
    format: Annotated[str, typer.Option(help="Format of pictures: png, jpg or webp.")] = "png",
    score: Annotated[
        list[str], typer.Option(help="Score against the photo: psnr, ssim; may be repeated.")
    ] = [],  # noqa: B006
    json: JsonOption = False,
) -> None:
    """Run many jobs from a table.

    Each row is a job of any command, or fills a template. Results do not depend on the number of
    workers or the order of rows. Pictures are written to OUT/files, and one Parquet row per job to
    OUT/results. The same command again does only the rows that are missing or failed. Exit code 1:
    some rows failed.
    """
    if format not in FORMATS:
        raise InputError(f"--format must be one of {', '.join(FORMATS)}. Got {format!r}.")
    for name in score:
        if name not in SCORES:
            raise InputError(f"--score must be one of {', '.join(SCORES)}. Got {name!r}.")
    from understudy.batch.batch import Batch, batch_steps
    from understudy.batch.cluster import by_actors
    from understudy.batch.local import by_workers, here

    wish = Batch(table, out, template, f".{format}", threads, tuple(score))
    if ray is not None:
        doing = partial(by_actors, address=ray, count=workers or 0)
    elif workers == 0:
        doing = here
    else:
        doing = partial(by_workers, devices=_devices(workers))
    outcome = show.drawn(batch_steps(wish, doing))
    show.result(outcome.values, json, *outcome.lines)
    if outcome.values["failed"]:
        raise typer.Exit(1)


def _devices(workers: int | None) -> list[str]:
    """The device of each worker: GPUs in turn, where there are any."""
    from torch.cuda import device_count

    gpus = device_count()
    number = workers or gpus or 1
    return [f"cuda:{k % gpus}" if gpus else "auto" for k in range(number)]
