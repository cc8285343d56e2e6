"""Refines a swap between different classes in two passes, of which the first begins with the photo.

Where the new subject is of another class, the swapped picture shows it in a pose of its own. The
photo holds the old one's pose: the first pass adds noise to the photo, takes the cross-attention
maps from the source in its first steps and reads pictures of the new subject, as for subjects of
one class (refine.py). What it draws stands like the old subject and has parts of its looks. The
second pass repeats the last steps once more from there, without the source's maps: the parts become
the new subject's own. Knows models through their protocol.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from understudy.models.interface import DiffusionModel
from understudy.settings import SwapSettings
from understudy.swap.limits import Limits
from understudy.swap.refine import appearance_count, refine_count, refined_steps, steps_of
from understudy.transfer.appearance import Appearance
from understudy.transfer.source_target import Source, Target
from understudy.transfer.step import SwapStep

HELD = 0.6  # share of the first pass that takes A from the source


def polish_count(settings: SwapSettings) -> int:
    """How many steps the second pass repeats; 0 where there is no first one."""
    return min(steps_of(settings.polish_steps, settings), refine_count(settings))


def polishes(
    source: Source, settings: SwapSettings, limits: Limits, appearance: Appearance | None
) -> bool:
    """Whether a swap is refined in two passes: different classes, and a photo to begin with."""
    known = source.subject is not None and source.inversion.clean is not None
    return bool(limits.polish and known and appearance is not None and polish_count(settings))


def polish_evaluations(settings: SwapSettings, finalists: int, pictures: int) -> int:
    """Network evaluations of both passes for one target, maps from the source left out.

    finalists: rows that are refined. pictures: of the subject, that are read.
    """
    halves = 1 if settings.guidance == 1 else 2
    second = replace(settings, refine_steps=polish_count(settings))
    return sum(
        halves * finalists * refine_count(one) + pictures * appearance_count(one)
        for one in (settings, second)
    )


def polished_steps(
    model: DiffusionModel,
    source: Source,
    swapped: SwapStep,
    targets: Sequence[Target],
    settings: SwapSettings,
    appearance: Appearance,
) -> Iterator[SwapStep]:
    """The steps of both passes, numbered on from the swap's own. See `refined_steps`.

    Each row of `swapped` gives its mask, and its number to the noise of both passes.
    """
    count = polish_count(settings)
    total = settings.steps + refine_count(settings) + count
    step = swapped
    for step in refined_steps(
        model, source, swapped, targets, settings, held=HELD, appearance=appearance, posed=True
    ):
        yield replace(step, total=total)
    second = replace(settings, refine_steps=count)
    begin, moved = replace(step, source=swapped.source), refine_count(settings)
    for step in refined_steps(model, source, begin, targets, second, appearance=appearance):
        yield replace(step, index=step.index + moved, total=total)
