"""`understudy swap`: a concept takes the place of a photo's subject."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.cli import show, stage
from understudy.cli.options import knobs
from understudy.errors import InputError, PromptError
from understudy.files import cache_folder, check_writable
from understudy.settings import METHODS, InvertSettings, RunSettings, SwapSettings

if TYPE_CHECKING:
    from understudy.recipe import Ingredient


@knobs
def swap(
    photo: Annotated[Path, typer.Argument(help="The photo.")],
    prompt: Annotated[str, typer.Option(help="What the photo shows, its subject included.")],
    swap: Annotated[str, typer.Option(help="WORD=CONCEPT, like cat=rex: who takes whose place.")],
    settings: SwapSettings,
    run: RunSettings,
    method: Annotated[
        str, typer.Option(help="how to invert", metavar="|".join(METHODS))
    ] = "null-text",
    mask: Annotated[
        Path | None, typer.Option(help="Picture of the photo's size; white may change.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("swapped.png"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Swap a concept into a photo: its pose, its stage.

    The photo is inverted first; a second swap of it finds that in the cache.
    """
    from understudy.photo import check_png_name, fit

    check_writable(check_png_name(out))
    word, name = split(swap)
    find(prompt, word)
    opened, ingredient = stage.open_photo(photo)
    dress = stage.load_concepts([name])
    (concept,) = dress.concepts
    target = find(prompt, word).sub(concept.phrase, prompt, count=1)
    from understudy.image import to_tensor, write_picture
    from understudy.invert import inversion_steps
    from understudy.swap import swap_steps

    model = stage.load_model(run)
    picture = to_tensor(fit(opened.pixels, model.picture_size))
    given = {"method": method, "steps": settings.steps, "guidance": settings.guidance}
    ingredients: list[Ingredient] = [ingredient, *dress.ingredients]
    region = None
    if mask:
        region, drawn = stage.open_mask(mask, opened, model.picture_size)
        ingredients.append(drawn)
    with stage.wearing(model, dress):
        asked = InvertSettings.filled(given)
        cache = cache_folder() / "inversions"
        inverting = inversion_steps(model, picture, prompt, asked, cache=cache)
        inversion = show.last(inverting, "Inverting").inversion
        assert inversion is not None, "the last step carries the inversion"
        words = (word, concept.phrase)
        steps = swap_steps(model, inversion, prompt, target, settings, words=words, mask=region)
        swapped = stage.decoded(model, show.last(steps, "Swapping").target)
    facts = {"prompt": prompt, "target_prompt": target, "swap": swap, "method": method}
    recipe = stage.made_by("swap", model, (settings, run), arguments=facts, ingredients=ingredients)
    write_picture(out, swapped, recipe.to_text())
    show.result({"picture": str(out), **facts}, json, f'{out}   "{target}"')


def split(swap: str) -> tuple[str, str]:
    """ "cat=rex" -> the word of the prompt, and the concept that takes its place."""
    word, equals, name = (part.strip() for part in swap.partition("="))
    if not (word and equals and name):
        raise InputError(f"--swap must be WORD=CONCEPT, like cat=rex. Got {swap!r}.")
    return word, name


def find(prompt: str, word: str) -> re.Pattern[str]:
    """A pattern of the word as a whole word. Raises PromptError when the prompt lacks it."""
    pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
    if not pattern.search(prompt):
        raise PromptError(f'--swap names {word!r}, but --prompt has no such word: "{prompt}".')
    return pattern
