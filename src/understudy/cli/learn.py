"""`understudy learn`: a folder of photos to a concept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.cli import show, stage
from understudy.cli.options import knobs
from understudy.files import cache_folder, check_folder_writable
from understudy.settings import LearnSettings, RunSettings

if TYPE_CHECKING:
    from understudy.learn.learn import LearnStep


@knobs
def learn(
    photos: Annotated[Path, typer.Argument(help="A folder with 3 to 5 photos of the subject.")],
    class_noun: Annotated[str, typer.Option("--class", help="What it is: cat, mug, teddy bear.")],
    name: Annotated[str, typer.Option(help="What prompts call it: {rex}.")],
    settings: LearnSettings,
    run: RunSettings,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write.", show_default="concepts/NAME")
    ] = None,
    identifier: Annotated[
        str | None, typer.Option(help="A rare word of your own.", show_default="chosen")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Learn the subject of a few photos as a concept."""
    from understudy.photo import list_folder

    folder = out or stage.STORE / name
    check_folder_writable(folder)
    list_folder(photos)  # a folder without photos fails before the model is loaded
    from understudy.image import read_folder
    from understudy.learn import learn_steps

    model = stage.load_model(run)
    pictures, listing = read_folder(photos, model.picture_size)
    show.note(*listing.notes)
    steps = learn_steps(
        model,
        pictures,
        name=name,
        class_noun=class_noun,
        identifier=identifier,
        settings=settings,
        cache=cache_folder() / "classes",
    )
    concept = show.last(steps, _title).concept
    assert concept is not None, "the last step carries the concept"
    concept.save(folder)
    numbers = {"concept": str(folder), "name": name, "phrase": concept.phrase}
    show.result(
        numbers, json, f'{folder}   say {{{name}}} in a prompt; it reads "{concept.phrase}"'
    )


def _title(step: LearnStep) -> str:
    if step.phase == "learn":
        return f"Learning, loss {step.loss:.3f}"
    return "Drawing the class" if step.phase == "prior" else "Learnt"
