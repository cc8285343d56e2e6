"""`understudy explain`: what a model attends to in a photo, and what a swap would take from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.cli import casting, results, show, stage
from understudy.cli.options import knobs
from understudy.errors import InputError
from understudy.settings import RunSettings, SwapSettings
from understudy.settings.marks import MarkSettings

if TYPE_CHECKING:
    from torch import Tensor

    from understudy.invert.inversion import Inversion
    from understudy.models.interface import DiffusionModel

MOMENTS = (0.1, 0.5, 1.0)  # shares of the steps whose attention is drawn


@knobs
def explain(
    prompt: Annotated[str, typer.Option(help="Prompt that describes the photo.")],
    settings: SwapSettings,
    run: RunSettings,
    provenance: MarkSettings,
    photo: casting.PhotoOption = None,
    seed: casting.SeedOption = None,
    swap: Annotated[
        list[str],
        typer.Option(help="WORD=CONCEPT: also draw the region that this swap may change."),
    ] = [],  # noqa: B006
    method: casting.MethodOption = "direct",
    out: results.OutOption = Path("explained.png"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw the attention of the model on a photo.

    Cross-attention maps of each word, components of self-attention, the schedule of a swap, and
    with --swap the region that it may change.
    """
    results.check_place(out)
    cast = casting.cast_of(swap, prompt, photo)
    from understudy.diffusion.prompt_words import words_of
    from understudy.invert.source import nothing
    from understudy.swap.explain import Attention, explain_steps
    from understudy.swap.figures import attention_sheet
    from understudy.swap.photoswap import schedule_of

    if not words_of(prompt):
        raise InputError(f"--prompt must have words to explain. Got {prompt!r}.")
    model = stage.load_model(run)
    source = casting.source_of(model, photo, seed, prompt, None)
    asked = casting.asked_inversion(method, settings, run)
    wanted = {max(round(share * settings.steps) - 1, 0) for share in MOMENTS}
    shown: list[tuple[str, Attention]] = []
    average: Attention | None = None
    with casting.staged(model, cast, source, asked, nothing, 0) as (inversion, _):
        watched = explain_steps(model, inversion, guidance=settings.guidance)
        for step in show.follow(watched, "Watching"):
            average = step.average
            if step.index in wanted:
                shown.append((f"step {step.index + 1}", step.attention))
        mask = _mask(model, inversion, cast, settings) if swap else None
        picture = source.picture
        if picture is None:
            picture = stage.decoded(model, inversion.trajectory[:1]).cpu()
    assert average is not None, "there is at least one step"
    shown.append(("all steps averaged", average))
    sheet = attention_sheet(
        picture, shown, average, f'"{prompt}"', schedule=schedule_of(settings), mask=mask
    )
    facts = {"prompt": prompt, "swap": swap, "method": method}
    files = (*source.ingredients, *cast.dress.ingredients)
    recipe = stage.made_by(
        "explain", model, (settings, run), arguments=facts, ingredients=files, seed=seed
    )
    results.write_edited(out, sheet, recipe, provenance, photo=photo, keeps_photo=True)
    told = {"picture": str(out), "words": list(average.words), **facts}
    show.result(told, json, str(out))


def _mask(
    model: DiffusionModel, inversion: Inversion, cast: casting.Cast, settings: SwapSettings
) -> Tensor | None:
    """Where the latents of this swap may change in the end."""
    from dataclasses import replace

    from understudy.swap import swap_steps

    asked = replace(settings, blend=True, budget=0)
    steps = swap_steps(model, inversion, inversion.prompt, cast.target, asked, words=cast.roles)
    return show.last(steps, "Swapping").mask
