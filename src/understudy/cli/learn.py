"""`understudy learn`: a folder of photos to a concept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.cli import show, signals, stage
from understudy.cli.check import looker, nouns, preflight
from understudy.cli.options import knobs
from understudy.errors import InputError
from understudy.files.atomic import cache_folder, check_folder_writable
from understudy.settings import LearnSettings, RunSettings

if TYPE_CHECKING:
    from understudy.concept import Concept
    from understudy.learn import LearnStep, Subject
    from understudy.learn.preview import Judge
    from understudy.models.interface import DiffusionModel
    from understudy.vision.features import ClipFeatures


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
    Path | None, typer.Option(help="Folder of masks named like the photos; white is the subject.")
]
Also = Annotated[
    list[str],
    typer.Option(help="NAME:CLASS:PHOTOS of another subject to learn together; may be repeated."),
]
After = Annotated[
    list[str], typer.Option(help="An earlier concept to preserve while learning; may be repeated.")
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
    also: Also = [],  # noqa: B006
    after: After = [],  # noqa: B006
    resume: Annotated[bool, typer.Option("--resume", help="Continue a stopped run.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Learn the subject of a few photos as a concept.

    After Ctrl-C the last checkpoint is kept; --resume continues.
    """
    folder = out or stage.STORE / name
    check_folder_writable(folder)
    leads = int(os.environ.get("RANK", "0")) == 0  # of several processes one speaks and writes
    others = [_further(words) for words in also]
    for one in (photos, *(path for _, _, path in others)):
        _look_over(one, run.model, settings.method, folder, leads)
    seeing = _seeing(clip_model, dino_model, not class_noun or settings.preview_every > 0)
    noun = class_noun or _proposed(photos, seeing)
    dress = stage.load_concepts(after)
    from understudy.learn import learn_steps

    model = stage.load_model(stage.own_device(run))
    subjects = [_subject(name, noun, photos, model, identifier, masks)]
    subjects += [_subject(*other, model) for other in others]
    with signals.deferred() as asked:
        steps = learn_steps(
            model,
            *subjects,
            settings=settings,
            cache=cache_folder() / "classes",
            after=dress.concepts,
            run=folder,
            resume=resume,
            judge=_judge(model, seeing, dino_model) if settings.preview_every else None,
        )
        last = show.last(signals.until(steps, asked), _title)
    assert last.concept is not None, "the last step carries the concept"
    if leads:
        last.concept.save(folder)
        _report(last, last.concept, folder, json)


def _report(last: LearnStep, concept: Concept, folder: Path, json: bool) -> None:
    """What prompts can say now, and which checkpoint looked best."""
    show.note(*last.warnings)
    numbers: dict[str, object] = {"concept": str(folder), "name": concept.name}
    numbers |= {"phrase": concept.phrase, "phrases": concept.phrases}
    lines = [f'{folder}   say {{{name}}}: it reads "{p}"' for name, p in concept.phrases.items()]
    if last.look is not None:
        best = folder / "checkpoints" / f"step-{last.look.step:06d}"
        numbers["best"] = str(best)
        lines.append(f"{best}   looked best; see {folder / 'learn.png'}")
    show.result(numbers, json, *lines)


def _further(words: str) -> tuple[str, str, Path]:
    """ "mia:dog:photos/mia" -> name, class noun, folder."""
    parts = words.split(":", 2)
    if len(parts) != 3 or not all(parts):
        raise InputError(f"--also must be NAME:CLASS:PHOTOS, like mia:dog:mia/. Got {words!r}.")
    return parts[0], parts[1], Path(parts[2])


def _subject(
    name: str,
    class_noun: str,
    photos: Path,
    model: DiffusionModel,
    identifier: str | None = None,
    masks: Path | None = None,
) -> Subject:
    """Somebody to learn: photos, and masks named like them, fitted to the model."""
    from understudy.learn import Subject
    from understudy.pictures.tensors import read_folder, read_masks

    pictures, listing = read_folder(photos, model.picture_size)
    show.note(*listing.notes)
    drawn = read_masks(masks, listing, model.picture_size) if masks else None
    return Subject(name, class_noun, pictures, identifier, drawn)


def _look_over(photos: Path, model: str, method: str, out: Path, leads: bool) -> None:
    """Refuse photos that nothing can be learnt from, before the model is loaded."""
    report = preflight(photos, model, method, out)
    report.refuse()
    show.note(*(report.all_warnings if leads else ()))


def _seeing(clip_model: str | None, dino_model: str | None, wanted: bool) -> ClipFeatures | None:
    """CLIP, where it was given and somebody will ask it."""
    if clip_model is None and dino_model is not None:
        raise InputError("--dino-model judges pictures; prompts need --clip-model beside it.")
    return looker(clip_model) if clip_model and wanted else None


def _proposed(photos: Path, seeing: ClipFeatures | None) -> str:
    """The class noun that CLIP believes in most; said, because the user may know better."""
    if seeing is None:
        raise InputError("Wanted --class, like --class cat, or --clip-model to propose one.")
    (noun, share), *_ = found = nouns(photos, seeing)
    others = ", ".join(f"{other} {chance:.0%}" for other, chance in found[1:])
    show.note(f"--class {noun}, says CLIP ({share:.0%}; {others}). If it is not, give --class.")
    return noun


def _judge(model: DiffusionModel, seeing: ClipFeatures | None, dino: str | None) -> Judge | None:
    """CLIP and DINO where they are given, else the recogniser in the toy world, else nobody."""
    from understudy.learn.preview_scorer import CLIP_SCALE, PreviewJudge
    from understudy.vision.features import DinoFeatures, ToyFeatures

    if seeing is not None:
        from understudy.vision.encoders import load_dino

        subject = DinoFeatures(load_dino(dino)) if dino else seeing
        return PreviewJudge(subject, seeing, CLIP_SCALE)
    if model.name != RunSettings().model:
        return None
    from understudy.vision.recogniser import load

    ruler = ToyFeatures(load())
    return PreviewJudge(ruler, ruler)


def _title(step: LearnStep) -> str:
    if step.phase == "learn":
        return f"Learning, loss {step.loss:.3f}"
    return "Drawing the class" if step.phase == "prior" else "Learnt"
