"""`understudy drag`: points of a picture go where they should."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.cli.results import OutOption
from understudy.jobs.request import Job
from understudy.settings import DTYPES
from understudy.settings.drag import DragSettings
from understudy.settings.marks import MarkSettings

_Points = Annotated[
    str, typer.Option(help='Handles and targets in pixels: "64,80>64,95; 40,60>38,50".')
]
_Latent = Annotated[
    Path | None, typer.Option(help="A projected photo (file of `project`), instead of a seed.")
]
_Into = Annotated[
    Path | None,
    typer.Option(help="The photo that --latent was made from; the change is pasted into it."),
]
_Save = Annotated[
    Path | None, typer.Option(help="Also save the drag, to continue later with --session.")
]
_Tracker = Annotated[str, typer.Option(help="How handles are tracked.", metavar="features|raft")]
_TrackerWeights = Annotated[
    Path | None, typer.Option(help="Weights file for --tracker raft (torchvision's raft_large).")
]


@knobs
def drag(
    *,
    generator: Annotated[str, typer.Option(help="toybox-gan, or a generator's folder.")] = (
        "toybox-gan"
    ),
    settings: DragSettings,
    provenance: MarkSettings,
    points: _Points = "",
    seed: Annotated[int | None, typer.Option(help="Seed of the picture to drag.")] = None,
    latent: _Latent = None,
    session: Annotated[Path | None, typer.Option(help="A saved drag to continue.")] = None,
    into: _Into = None,
    mask: Annotated[
        Path | None, typer.Option(help="Mask of the same size; white may change.")
    ] = None,
    out: OutOption = Path("dragged.png"),
    film: Annotated[Path | None, typer.Option(help="Also write a film: .gif or .mp4.")] = None,
    marks: Annotated[
        bool, typer.Option("--marks/--no-marks", help="Draw handles and targets in the film.")
    ] = True,
    save: _Save = None,
    also: Annotated[str, typer.Option(help="Apply the same edit to other seeds, like 4,5,6.")] = "",
    tracker: _Tracker = "features",
    tracker_weights: _TrackerWeights = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="Precision of the high-resolution blocks.", metavar="|".join(DTYPES))
    ] = "float32",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Drag points of a picture to new positions (DragGAN).

    The picture comes from a --seed, from the --latent of a photo (see `project`), or from a saved
    --session, which continues with its own settings and, without --points, its own points. A
    session of a projected photo needs its --latent as well.
    """
    job = Job.of(
        "drag",
        settings,
        provenance,
        seed=seed,
        generator=generator,
        points=points,
        latent=latent,
        session=session,
        into=into,
        mask=mask,
        out=out,
        film=film,
        marks=marks,
        save=save,
        also=also,
        tracker=tracker,
        tracker_weights=tracker_weights,
        device=device,
        dtype=dtype,
    )
    show.job(job, json)
