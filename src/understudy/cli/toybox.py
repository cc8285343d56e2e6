"""`understudy toybox`: pictures of the built-in world."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.cli import show
from understudy.cli.results import JsonOption, OutOption
from understudy.errors import InputError
from understudy.files.atomic import check_folder_writable
from understudy.jobs import results

if TYPE_CHECKING:
    from understudy.toybox import Scene

app = typer.Typer(
    name="toybox", help="Render pictures of the built-in toy world.", no_args_is_help=True
)

Seed = Annotated[int, typer.Option(help="Seed; the same seed gives the same file.", min=0)]
Size = Annotated[int, typer.Option(help="Height and width in pixels.", min=16, max=2048)]


@app.command()
def render(
    seed: Seed = 0,
    out: OutOption = Path("scene.png"),
    size: Size = 128,
    truth: Annotated[
        bool, typer.Option("--truth", help="Also write the scene, masks and key points.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Render the scene of a seed.

    The caption and the scene are stored in the metadata of the picture.
    """
    results.check_place(out)
    show.replaced(out)
    from understudy.toybox import caption, sample_scene

    scene = sample_scene(seed)
    words = caption(scene, seed)
    _write(out, scene, size, "toybox render", seed=seed, caption=words)
    known = _write_truth(out, scene, size, words) if truth else []
    facts = {"picture": str(out), "caption": words, **({"truth": known} if truth else {})}
    show.result(facts, json, f"{out}   {words}", *known)


@app.command()
def subject(
    seed: Seed = 0,
    photos: Annotated[int, typer.Option(help="Number of photos.", min=1, max=100)] = 4,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("subject"),
    size: Size = 128,
    json: JsonOption = False,
) -> None:
    """Render one toy in several scenes, as photos for `understudy learn`."""
    check_folder_writable(out)
    if out.is_dir() and any(out.glob("*.png")):
        raise InputError(f"--out {out} already contains pictures. Use an empty or a new folder.")
    from understudy.toybox import subject_photos

    scenes = subject_photos(seed, photos)
    files = [out / f"{number:02d}.png" for number in range(1, photos + 1)]
    written: list[Path] = []
    try:
        for file, scene in zip(files, scenes, strict=True):
            _write(file, scene, size, "toybox subject", seed=seed, photo=int(file.stem))
            written.append(file)
    except BaseException:  # Ctrl-C, too: the same command can be given again
        for file in written:
            file.unlink(missing_ok=True)
        raise
    noun = scenes[0].subjects[0].identity.class_name
    paths = [str(file) for file in files]
    show.result({"pictures": paths, "class": noun}, json, *paths, f"The subject is a {noun}.")


def _write_truth(out: Path, scene: Scene, size: int, words: str) -> list[str]:
    """Beside scene.png: scene.json (scene, caption, key points), scene.mask-0.png and so on."""
    import numpy as np

    from understudy.files.atomic import replacing
    from understudy.pictures.photo import write_pixels
    from understudy.toybox import render as draw

    drawn, files = draw(scene, size), [out.with_suffix(".json")]
    points = [{name: vars(p) for name, p in toy.items()} for toy in drawn.keypoints]
    record = {"caption": words, "keypoints": points, "scene": jsonlib.loads(scene.to_json())}
    with replacing(files[0]) as partial:
        partial.write_text(jsonlib.dumps(record, indent=1) + "\n")
    for number, mask in enumerate(drawn.masks):
        files.append(out.with_suffix(f".mask-{number}.png"))
        grey = np.round(255 * mask).astype(np.uint8)
        write_pixels(files[-1], np.repeat(grey[..., None], 3, axis=2))
    return [str(file) for file in files]


def _write(
    file: Path, scene: Scene, size: int, command: str, *, seed: int, **arguments: str | int
) -> None:
    from understudy.pictures.recipe import Recipe
    from understudy.toybox import render as draw

    facts = {"size": size, **arguments, "scene": scene.to_json()}
    recipe = Recipe(command=command, arguments=facts, seed=seed)
    results.write_rendered(file, draw(scene, size).picture, recipe)
