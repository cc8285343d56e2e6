"""The job `explain`: attention on a photo, and the region that a swap would change."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from understudy.concept import applied
from understudy.diffusion.prompt_words import words_of
from understudy.errors import InputError
from understudy.jobs.events import Events, Result, watched
from understudy.jobs.framing import Wanted
from understudy.jobs.results import recipe_of, write_edited
from understudy.jobs.source import InputPicture, Inverted, inversions, inverted, source_of
from understudy.jobs.subjects import SwapSubjects, checked_swap
from understudy.jobs.swap import located
from understudy.jobs.words import check_negative_prompt
from understudy.jobs.work import Work, decoded
from understudy.models.interface import DiffusionModel
from understudy.settings import InvertSettings, RunSettings, SwapSettings
from understudy.settings.inputs import ExplainInputs
from understudy.settings.marks import MarkSettings
from understudy.settings.swap import inversion_for
from understudy.swap import swap_steps
from understudy.swap.blending import check_background
from understudy.swap.explain import Attention, ExplainStep, explain_steps
from understudy.swap.figures import attention_sheet
from understudy.swap.photoswap import schedule_of

MOMENTS = (0.1, 0.5, 1.0)  # shares of the steps whose attention is drawn


def explain(
    work: Work,
    settings: SwapSettings,
    run: RunSettings,
    invert: InvertSettings | None = None,
    marks: MarkSettings | None = None,
    *,
    given: ExplainInputs,
) -> Events[Result]:
    """Draw what the model attends to, and with `swap` where that swap may change the photo."""
    prompt, swap, out = given.prompt, given.swap, given.out
    if not words_of(prompt):
        raise InputError(f"--prompt must have words to explain. Got {prompt!r}.")
    subjects, selected = checked_swap(work, given)
    asked = invert or inversion_for(settings, run.model, "direct")
    check_negative_prompt(settings.negative, asked)
    with work.model(run) as model:
        targets = (subjects.target,) if swap else ()
        wanted = Wanted(given.region, prompt, targets, subjects.concepts, words=subjects.words)
        source = source_of(work, model, given, selected, wanted)
        if swap:
            check_background(model, settings)
            source = located(model, source, subjects, replace(settings, blend=True))
        with applied(model, *subjects.concepts):
            found = yield from inverted(model, source, asked, cache=inversions(work))
            shown, average = yield from _attention(model, found, settings)
            mask = (yield from _mask(model, found, source, subjects, settings)) if swap else None
            picture = source.picture
            if picture is None:
                picture = decoded(model, found.inversion.trajectory[:1]).cpu()
        facts = {"prompt": prompt, "swap": swap, "method": asked.method}
        said = {**facts, "cache": found.found}
        recipe = recipe_of(work, model, settings, run, asked, facts=said, seed=given.seed)
    sheet = attention_sheet(
        picture, shown, average, f'"{prompt}"', schedule=schedule_of(settings), mask=mask
    )
    write_edited(out, sheet, recipe, marks, photo=given.photo, keeps_photo=True)
    values = {"picture": str(out), "words": list(average.words), **facts}
    return Result(values, (str(out),), (str(out),))


def _attention(
    model: DiffusionModel, found: Inverted, settings: SwapSettings
) -> Events[tuple[list[tuple[str, Attention]], Attention]]:
    """What is attended to at MOMENTS and on the average of all steps."""
    wanted = {max(round(share * settings.steps) - 1, 0) for share in MOMENTS}
    shown: list[tuple[str, Attention]] = []

    def look(step: ExplainStep) -> None:
        if step.index in wanted:
            shown.append((f"step {step.index + 1}", step.attention))

    steps = explain_steps(model, found.inversion, guidance=settings.guidance)
    average = (
        yield from watched(steps, "Recording attention", look, kept=lambda: found.kept)
    ).average
    return [*shown, ("all steps averaged", average)], average


def _mask(
    model: DiffusionModel,
    found: Inverted,
    source: InputPicture,
    subjects: SwapSubjects,
    settings: SwapSettings,
) -> Events[Tensor | None]:
    """Where the latents of this swap may change in the end."""
    asked = replace(settings, blend=True, budget=0, refine_steps=0)
    whole = found.source(source.picture, source.subject)
    steps = swap_steps(model, whole, subjects.wanted(), asked)
    return (yield from watched(steps, "Swapping", kept=lambda: found.kept)).mask
