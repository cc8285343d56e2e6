"""Draws the subject on the photo's own layout: further candidates for subjects of one class.

The photo's noise keeps its layout, its pose and its sharp outlines as long as nothing is added. The
target is therefore replayed from it without fresh noise, with the source's cross-attention maps (A)
and self-attention maps (M) for as many steps as prompt-to-prompt takes them for photos (Hertz et
al. 2022, arXiv:2208.01626). But that noise carries the old subject's colours, too. So the subject's
place reads pictures of the new one (transfer/appearance.py) in nearly all of these steps.
A short repetition of the last steps (refine.py) replaces details that are still the old one's.
Knows models through their protocol.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from understudy.models.interface import DiffusionModel
from understudy.settings import SwapSettings
from understudy.swap.beyond import Beyond
from understudy.swap.chain import joined
from understudy.swap.limits import Limits
from understudy.swap.refine import (
    REDRAWN,
    refine_count,
    refine_evaluations,
    refined_steps,
    steps_of,
)
from understudy.transfer.appearance import Appearance, AppearanceRows
from understudy.transfer.blend import Blend
from understudy.transfer.loop import Replay
from understudy.transfer.schedule import SwapSchedule, first_steps
from understudy.transfer.source_target import Source, Target
from understudy.transfer.step import SwapStep

CROSS, SELF = 0.8, 0.5  # shares of the steps that take A and M, as prompt-to-prompt does
READ = 0.9  # share of the steps that read pictures: the last ones only sharpen


def layout_count(settings: SwapSettings) -> int:
    """How many steps refine such a picture; 0: none is drawn."""
    return min(steps_of(settings.layout_steps, settings), refine_count(settings))


def draws_layout(
    source: Source, settings: SwapSettings, limits: Limits, appearance: Appearance | None
) -> bool:
    """Whether a swap has these candidates: equal classes, a known path, and pictures to read."""
    known = source.subject is not None and source.inversion.path is not None
    return bool(limits.drawn and known and appearance is not None and layout_count(settings))


def layout_plan(settings: SwapSettings) -> SwapSchedule:
    """Which steps of the drawing take what from the source."""
    steps = settings.steps
    return first_steps(steps, 0, round(SELF * steps), round(CROSS * steps))


def layout_steps_needed(settings: SwapSettings) -> int:
    """How many steps such candidates take."""
    return settings.steps + layout_count(settings) if layout_count(settings) else 0


def layout_evaluations(settings: SwapSettings, targets: int, pictures: int, held: float) -> int:
    """Network evaluations of these candidates, with those for maps of the source.

    pictures: of the subject, that are read. held: see `Limits.held`.
    """
    again = layout_count(settings)
    if not again:
        return 0
    halves, steps = 1 if settings.guidance == 1 else 2, settings.steps
    drawn = halves * targets * steps + round(CROSS * steps) + pictures * round(READ * steps)
    short = replace(settings, refine_steps=again)
    return drawn + refine_evaluations(short, REDRAWN * targets, pictures, held)


def layout_steps(
    model: DiffusionModel,
    source: Source,
    swapped: SwapStep,
    targets: Sequence[Target],
    settings: SwapSettings,
    appearance: Appearance,
    blend: Blend,
    *,
    held: float,
    beyond: Beyond | None = None,
) -> Iterator[SwapStep]:
    """The steps of drawing one picture for each target, then those of refining it.

    The rows of the last step are the drawn pictures, then the refined ones.

    Args:
        swapped: a step with one row for each target, whose masks say where refining may change
            them, and whose numbers the rows carry.
        blend: where a swap may differ from the photo. held: see `refined_steps`.
        beyond: parts that the old subject lacks, one row for each target; the drawn pictures
            take them.
    """
    drawn = None
    for drawn in _drawn(model, source, targets, settings, appearance, blend):
        yield replace(drawn, targets=swapped.targets)
    assert drawn is not None, "a swap has steps"
    begun = ("layout",) * len(swapped.targets)
    drawn = replace(drawn, targets=swapped.targets, mask=swapped.mask, begun=begun)
    if beyond is not None:
        drawn, source = replace(drawn, target=beyond.on(drawn.target)), beyond.added_to(source)
    short, step = replace(settings, refine_steps=layout_count(settings)), drawn
    for step in refined_steps(
        model, source, drawn, targets, short,
        held=held, noises=REDRAWN, appearance=appearance,
    ):  # fmt: skip
        if step.index < step.total - 1:
            yield step
    # Candidates are compared by `clean`. This picture is finished: its latents are clean.
    yield joined([replace(drawn, clean=drawn.target), step])


def _drawn(
    model: DiffusionModel,
    source: Source,
    targets: Sequence[Target],
    settings: SwapSettings,
    appearance: Appearance,
    blend: Blend,
) -> Iterator[SwapStep]:
    """The photo's noise denoised for each target, its layout held and pictures read."""
    inversion = source.inversion
    assert source.subject is not None and inversion.path is not None, "see draws_layout"
    steps = settings.steps
    run = Replay(
        model,
        replace(source, features=None),
        targets,
        layout_plan(settings),
        guidance=settings.guidance,
        # Without fresh noise the source's own path surrounds the subject.
        blend=replace(blend, clean=None),
    )
    read = range(round(READ * steps))
    shown = AppearanceRows(model, appearance, source.subject, read, settings.noise_seed)
    noise = inversion.noise.expand(len(targets), -1, -1, -1).clone()
    run.begin_at(0, noise, inversion.path, shown)
    for index in range(steps):
        yield run.step(index)
