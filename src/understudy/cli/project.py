"""`understudy project`: a photo to a latent of a generator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.jobs.request import Job
from understudy.settings.marks import MarkSettings
from understudy.settings.project import ProjectSettings

SUFFIX = ".latent.safetensors"


@knobs
def project(
    photo: Annotated[Path, typer.Argument(help="The photo to project.")],
    *,
    generator: Annotated[str, typer.Option(help="toybox-gan, or a generator's folder.")] = (
        "toybox-gan"
    ),
    settings: ProjectSettings,
    provenance: MarkSettings,
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default=f"PHOTO{SUFFIX}")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Also write the picture of the latent.")
    ] = None,
    crop: Annotated[str, typer.Option(help='Part of the photo: "x0,y0,x1,y1".')] = "",
    eyes: Annotated[str, typer.Option(help='To align a face: "x,y; x,y", left and right.')] = "",
    mouth: Annotated[str, typer.Option(help='Its mouth\'s corners: "x,y; x,y".')] = "",
    landmarks: Annotated[
        Path | None, typer.Option(help="dlib's 68-point model, to align a face automatically.")
    ] = None,
    measure: Annotated[str, typer.Option(help="Perceptual distance: recogniser or lpips.")] = (
        "recogniser"
    ),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew instead of continuing a stopped run.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find the latent of a photo, then tune the generator on it (pivotal tuning inversion).

    A stopped run continues from its last checkpoint when the command is repeated.
    """
    job = Job.of(
        "project",
        settings,
        provenance,
        photo=photo,
        generator=generator,
        out=out,
        picture=picture,
        crop=crop,
        eyes=eyes,
        mouth=mouth,
        landmarks=landmarks,
        measure=measure,
        fresh=fresh,
        device=device,
    )
    show.job(job, json)
