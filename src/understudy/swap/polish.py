"""Draws a subject of another class from the photo, too, in two passes; the better picture is kept.

Where the new subject is of another class, the swapped picture often shows it in a pose of its own.
The photo holds the old one's pose: the first pass adds noise to the photo, takes the
cross-attention maps from the source in its first steps and reads pictures of the new subject, as
for subjects of one class (refine.py). What it draws stands like the old subject and has some of its
looks. The second pass repeats the last steps once more from there, without the source's maps, which
replaces these looks. The results are candidates beside those that began with the swapped picture,
if they show the new subject no worse (schedule_search.py).
Knows models through their protocol.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from understudy.models.interface import DiffusionModel
from understudy.settings import SwapSettings
from understudy.swap.limits import Limits
from understudy.swap.refine import refine_count, refine_evaluations, refined_steps, steps_of
from understudy.transfer.appearance import Appearance
from understudy.transfer.source_target import Source, Target
from understudy.transfer.step import SwapStep

HELD = 0.6  # share of the first pass that takes A from the source


def polish_count(settings: SwapSettings) -> int:
    """How many steps the second pass repeats; 0 where there is no first one."""
    return min(steps_of(settings.polish_steps, settings), refine_count(settings))


def polish_steps_needed(settings: SwapSettings) -> int:
    """How many steps both passes take."""
    again = polish_count(settings)
    return refine_count(settings) + again if again else 0


def polishes(
    source: Source, settings: SwapSettings, limits: Limits, appearance: Appearance | None
) -> bool:
    """Whether a swap has these passes: different classes, and a photo and pictures to read."""
    known = source.subject is not None and source.inversion.clean is not None
    return bool(limits.polish and known and appearance is not None and polish_count(settings))


def polish_evaluations(settings: SwapSettings, rows: int, pictures: int) -> int:
    """Network evaluations of both passes, without those for maps of the source.

    rows: pictures that are drawn. pictures: of the subject, that are read.
    """
    second = replace(settings, refine_steps=polish_count(settings))
    return sum(refine_evaluations(one, rows, pictures) for one in (settings, second))


def polished_steps(
    model: DiffusionModel,
    source: Source,
    swapped: SwapStep,
    targets: Sequence[Target],
    settings: SwapSettings,
    appearance: Appearance,
) -> Iterator[SwapStep]:
    """The steps of both passes.

    swapped: the last step of the swap; see `refined_steps`. Its rows give masks, and numbers to the
    noise.
    """
    step = swapped
    for step in refined_steps(
        model, source, swapped, targets, settings,
        held=HELD, appearance=appearance, posed=source.inversion.clean,
    ):  # fmt: skip
        yield step
    second = replace(settings, refine_steps=polish_count(settings))
    begun = replace(step, source=swapped.source)
    yield from refined_steps(model, source, begun, targets, second, appearance=appearance)
