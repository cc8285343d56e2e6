"""`understudy learn`: a folder of photos to a concept."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.jobs.request import Job
from understudy.settings import LearnSettings, RunSettings
from understudy.settings.marks import CONSENT

Noun = Annotated[
    str | None,
    typer.Option("--class", help="Class noun, like cat or mug.", show_default="asked of CLIP"),
]
Clip = Annotated[
    str | None,
    typer.Option(
        help="Folder or hub id of a CLIP model: proposes the class noun, scores previews."
    ),
]
Dino = Annotated[
    str | None,
    typer.Option(help="Folder or hub id of a DINO model: scores the identity of previews."),
]
Masks = Annotated[
    Path | None,
    typer.Option(
        help="Folder of masks named like the photos; white is the subject. Without it, "
        "NAME.mask.png beside a photo is its mask."
    ),
]
ClassImages = Annotated[
    list[str],
    typer.Option(
        metavar="[NOUN=]FOLDER",
        help="Folder of images of the class, learnt along instead of images that the model draws. "
        "With NOUN=, of the class of a subject of --also; may be repeated.",
    ),
]
Also = Annotated[
    list[str],
    typer.Option(
        help="NAME:CLASS:PHOTOS of another subject to learn in the same concept; may be repeated."
    ),
]
After = Annotated[
    list[str], typer.Option(help="An earlier concept to preserve while learning; may be repeated.")
]
Consent = Annotated[
    str,
    typer.Option(metavar="|".join(CONSENT), help="Recorded consent of the people in the photos."),
]


@knobs
def learn(
    photos: Annotated[Path, typer.Argument(help="A folder with 3 to 5 photos of the subject.")],
    name: Annotated[str, typer.Option(help="Name in prompts: {rex}.")],
    settings: LearnSettings,
    run: RunSettings,
    class_noun: Noun = None,
    clip_model: Clip = None,
    dino_model: Dino = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write.", show_default="concepts/NAME")
    ] = None,
    identifier: Annotated[
        str | None, typer.Option(help="Identifier to use, a rare word.", show_default="chosen")
    ] = None,
    masks: Masks = None,
    class_images: ClassImages = [],  # noqa: B006
    also: Also = [],  # noqa: B006
    after: After = [],  # noqa: B006
    consent: Consent = CONSENT[0],
    resume: Annotated[bool, typer.Option("--resume", help="Continue a stopped run.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Learn the subject of a few photos as a concept.

    NAME.txt beside NAME.jpg is its caption, NAME.mask.png its mask.
    After Ctrl-C the last checkpoint is kept; --resume continues.
    """
    job = Job.of(
        "learn",
        settings,
        run,
        photos=photos,
        name=name,
        class_noun=class_noun,
        clip_model=clip_model,
        dino_model=dino_model,
        out=out,
        identifier=identifier,
        masks=masks,
        class_images=class_images,
        also=also,
        after=after,
        resume=resume,
        consent=consent,
    )
    show.job(job, json, finish_step=True, kept=partial(_kept, out or Path("concepts") / name))


def _kept(folder: Path) -> str:
    """What a stopped run left in its folder."""
    from understudy.learn.checkpoint import RunFolder

    last = RunFolder(folder, 1, {}).latest()
    if last is None:
        return "Class images drawn so far are in the cache: the same command continues with them."
    return f"Step {last.step} is kept in {last.folder}: the same command with --resume continues."
