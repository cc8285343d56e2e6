"""`understudy generate`: a prompt, and concepts in it, to pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from understudy.cli import results, show, stage
from understudy.cli.options import knobs
from understudy.errors import InputError
from understudy.files.atomic import check_folder_writable
from understudy.settings import GenerateSettings, RunSettings
from understudy.settings.marks import MarkSettings

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")  # of one picture; anything else is a folder
AT_ONCE = 4  # pictures in a batch; the batch never changes a picture


@knobs
def generate(
    prompt: Annotated[str, typer.Argument(help='Like "a photo of {rex} in the snow".')],
    settings: GenerateSettings,
    run: RunSettings,
    provenance: MarkSettings,
    out: Annotated[
        Path, typer.Option(help="A folder, or a .png, .jpg or .webp for one picture.")
    ] = Path("out"),
    concept: Annotated[
        list[str], typer.Option(help="Concept, by name or folder; may be repeated.")
    ] = [],  # noqa: B006
    count: Annotated[int, typer.Option(help="Number of pictures.")] = 1,
    seed: Annotated[
        int, typer.Option(help="Seed of the first picture; the following ones count up.")
    ] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Generate pictures from a prompt.

    {rex} in the prompt stands for the concept named rex; a missing article is added.
    """
    files = _names(out, count, seed)
    dress = stage.load_concepts(concept)
    from understudy.concept import spelled, with_articles
    from understudy.generate import generate_steps

    asked = with_articles(prompt)
    text = spelled(asked, *dress.concepts)
    model = stage.load_model(run)
    model.tokenize(text)  # a prompt too long fails before any work
    recipe = stage.made_by(
        "generate",
        model,
        (settings, run),
        arguments={"prompt": prompt},
        ingredients=dress.ingredients,
    )
    with stage.wearing(model, dress):
        for some in _batches(list(files)):
            steps = generate_steps(
                model,
                [asked] * len(some),
                some,
                steps=settings.steps,
                guidance=settings.guidance,
                negative=settings.negative,
                eta=settings.eta,
                temperature=settings.temperature,
                concepts=dress.concepts,
            )
            title = f"Generating {len(some)} of {count}"
            pictures = stage.decoded(model, show.last(steps, title).latents)
            for one, picture in zip(some, pictures.split(1), strict=True):
                seeded = replace(recipe, seed=one)
                results.write_generated(files[one], picture, seeded, provenance)
    written = [str(file) for file in files.values()]
    show.result({"pictures": written, "prompt": text}, json, *written)


def _batches(seeds: list[int]) -> Iterator[list[int]]:
    for first in range(0, len(seeds), AT_ONCE):
        yield seeds[first : first + AT_ONCE]


def _names(out: Path, count: int, seed: int) -> dict[int, Path]:
    """The file of each seed, checked to be writable before minutes of work."""
    if count < 1:
        raise InputError(f"--count must be at least 1. Got {count}.")
    if seed < 0:
        raise InputError(f"--seed must be at least 0. Got {seed}.")
    if out.suffix.lower() in SUFFIXES:
        if count > 1:
            raise InputError(f"--out {out} is one file for {count} pictures. Give a folder.")
        results.check_place(out)
        return {seed: out}
    check_folder_writable(out)
    return {one: out / f"seed-{one:04d}.png" for one in range(seed, seed + count)}
