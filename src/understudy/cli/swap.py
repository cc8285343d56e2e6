"""`understudy swap`: concepts take the places of a photo's subjects."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.cli import casting, results, show, stage
from understudy.cli.options import knobs
from understudy.settings import RunSettings, SwapSettings
from understudy.settings.marks import MarkSettings
from understudy.settings.swap import COUNTS, INVERSIONS

if TYPE_CHECKING:
    from understudy.invert.inversion import Inversion
    from understudy.invert.source import SourceFeatures
    from understudy.models.interface import DiffusionModel
    from understudy.swap.schedule_search import Audition
    from understudy.transfer.loop import SwapStep


@knobs
def swap(
    prompt: Annotated[
        str, typer.Option(help="Prompt that describes the photo, subjects included.")
    ],
    swap: Annotated[
        list[str],
        typer.Option(
            help="WORD=CONCEPT, like cat=rex: who takes whose place. cat#2=rex means the second "
            "cat alone. May be repeated."
        ),
    ],
    settings: SwapSettings,
    run: RunSettings,
    provenance: MarkSettings,
    photo: casting.PhotoOption = None,
    seed: casting.SeedOption = None,
    method: casting.SuitedMethodOption = None,
    mask: casting.MaskOption = None,
    photos: casting.PhotosOption = None,
    out: results.OutOption = Path("swapped.png"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Replace subjects of a photo by concepts, keeping pose and background (Photoswap).

    The photo is inverted first. Inversion and features are cached for later swaps of the photo.
    """
    results.check_place(out)
    settings.check_place(mask is not None)
    cast = casting.cast_of(swap, prompt, photo)
    from understudy.swap.photoswap import framed, parts_read

    model = stage.load_model(run)
    source = casting.source_of(model, photo, seed, prompt, mask)
    method = method or INVERSIONS[settings.preset]
    asked = casting.asked_inversion(method, settings, run)
    parts = partial(parts_read, settings)
    facts: dict[str, object] = {"prompt": prompt, "target_prompt": cast.target}
    facts |= {"swap": swap, "method": method}
    with casting.staged(model, cast, source, asked, parts, settings.keep) as (inversion, features):
        audition = _audition(model, settings, source, cast, photos)
        last = _performed(model, settings, source, cast, inversion, features, audition)
        swapped = stage.decoded(model, last.target)
        how = (settings, source.picture, source.mask)
        swapped = framed(model, inversion, swapped, last, *how).cpu()
    if audition is not None:
        facts["chosen"] = _chosen(last, settings)
    files = (*source.ingredients[:1], *cast.dress.ingredients, *source.ingredients[1:])
    recipe = stage.made_by(
        "swap", model, (settings, run), arguments=facts, ingredients=files, seed=seed
    )
    kept = settings.paste and photo is not None
    results.write_edited(out, swapped, recipe, provenance, photo=photo, keeps_photo=kept)
    show.result({"picture": str(out), **facts}, json, f'{out}   "{cast.target}"')


def _performed(
    model: DiffusionModel,
    settings: SwapSettings,
    source: casting.Source,
    cast: casting.Cast,
    inversion: Inversion,
    features: SourceFeatures | None,
    audition: Audition | None,
) -> SwapStep:
    """The last step of the swap."""
    from understudy.swap import swap_steps

    steps = swap_steps(
        model,
        inversion,
        source.prompt,
        cast.target,
        settings,
        words=cast.roles,
        mask=source.mask,
        features=features,
        audition=audition,
    )
    return show.last(steps, "Swapping")


def _audition(
    model: DiffusionModel,
    settings: SwapSettings,
    source: casting.Source,
    cast: casting.Cast,
    photos: Path | None,
) -> Audition | None:
    """Who judges candidates; None where nobody can, or nothing is to be chosen."""
    if not settings.budget:
        return None
    found = casting.jury(model, settings.guidance, source, cast, photos)
    if found is None:
        show.note("nobody can judge candidates here; the preset's numbers are taken.")
    return found


def _chosen(last: SwapStep, settings: SwapSettings) -> dict[str, int]:
    """The three numbers of the candidate that was taken."""
    from understudy.swap.schedule_search import candidates

    plans = candidates(settings)
    plan = plans[last.targets[0] % len(plans)]
    ends = (plan.self_output, plan.self_map, plan.cross_map)
    return dict(zip(COUNTS, (len(steps) for steps in ends), strict=True))
