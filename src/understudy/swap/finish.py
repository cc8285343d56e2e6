"""What follows the steps of a swap: more candidates are drawn, and one picture a target is left.

The swapped pictures are refined (refine.py). Others begin with the photo and are drawn twice
(polish.py) where classes differ, or are drawn on the photo's layout (layout.py) where they do not.
Knows models through their protocol.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.models.interface import DiffusionModel
from understudy.settings import SwapSettings
from understudy.swap.beyond import Beyond
from understudy.swap.blending import limits_for
from understudy.swap.chain import chained
from understudy.swap.layout import draws_layout, layout_steps, layout_steps_needed
from understudy.swap.limits import with_part
from understudy.swap.polish import polish_steps_needed, polished_steps, polishes
from understudy.swap.refine import REDRAWN, appearance_count, refine_count, refined_steps
from understudy.swap.schedule_search import ScheduleSearch, candidates
from understudy.swap.where import BothSubjects
from understudy.transfer.appearance import Appearance
from understudy.transfer.blend import Blend
from understudy.transfer.source_target import Source, Target
from understudy.transfer.step import SwapStep


def finished_steps(
    model: DiffusionModel,
    source: Source,
    targets: Sequence[Target],
    settings: SwapSettings,
    steps: Iterator[SwapStep],
    search: ScheduleSearch | None,
    appearance: Appearance | None,
    blend: Blend | None,
) -> Iterator[SwapStep]:
    """The steps of a swap and all that follow; in the last of them one picture a target.

    search: chooses; None = there is one candidate a target. appearance, blend: of the swap.
    """
    count = 1 if search is None else len(candidates(settings, len(targets)))
    run = _Further.planned(source, targets, settings, search, appearance, blend)
    total, step = settings.steps + run.count, None
    for step in steps:
        last = step.index == settings.steps - 1 and not run.count
        if last and search is not None:
            step = step.rows(search.best(model, step, count))
        yield replace(step, total=total)
    if not run.count or step is None:
        return
    numbers = [number // count for number in step.targets]
    runs, search = run.runs(model, source, targets, settings, step, numbers)
    for again in chained(runs, settings.steps, total):
        last = again.index == total - 1
        if last and search is not None:
            others = len(again.targets) - len(step.targets) * REDRAWN
            if others:
                keeps = search.preferred if run.drawn is not None else search.recognised
                again = again.rows(keeps(model, again, count, others))
            again = again.rows(search.best(model, again, count))
        yield again


@dataclass(frozen=True)
class _Further:
    """Which candidates follow the swap's own. polished, drawn: pictures and the swap's blend, where
    these are made."""

    search: ScheduleSearch | None
    appearance: Appearance | None
    polished: bool
    drawn: Blend | None
    count: int  # of all steps that follow

    @classmethod
    def planned(
        cls,
        source: Source,
        targets: Sequence[Target],
        settings: SwapSettings,
        search: ScheduleSearch | None,
        appearance: Appearance | None,
        blend: Blend | None,
    ) -> _Further:
        limits = limits_for(targets, settings)
        appearance = appearance if appearance_count(settings) else None
        told = source, settings, limits, appearance
        polished = search is not None and polishes(*told)
        drawn = blend if search is not None and draws_layout(*told) else None
        count = refine_count(settings)
        count += polish_steps_needed(settings) if polished else 0
        count += layout_steps_needed(settings) if drawn is not None else 0
        return cls(search, appearance, polished, drawn, count)

    def runs(
        self,
        model: DiffusionModel,
        source: Source,
        targets: Sequence[Target],
        settings: SwapSettings,
        step: SwapStep,
        numbers: Sequence[int],
    ) -> tuple[list[Iterator[SwapStep]], ScheduleSearch | None]:
        """The runs that follow the swap's last step, and the search that chooses from their rows.

        numbers: which of the targets the step's rows are of.
        """
        wanted, search = [targets[number] for number in numbers], self.search
        limits, whole, photo = limits_for(targets, settings), source, source.inversion.clean
        mask, beyond = _narrowed(model, source, step, wanted, settings, numbers)
        begun = replace(step, mask=mask)
        if beyond is not None:
            source, photo = beyond.added_to(source), photo if photo is None else beyond.on(photo)
            begun, limits = replace(begun, target=beyond.on(step.target)), with_part(limits)
            search = search and replace(search, layout_weight=limits.layout)
        runs = [
            refined_steps(
                model, source, begun, wanted, settings,
                held=limits.held,
                noises=1 if search is None else REDRAWN,
                appearance=self.appearance,
                posed=photo if limits.posed else None,
            )
        ]  # fmt: skip
        if self.appearance is not None and self.polished:
            told = model, source, begun, wanted, settings, self.appearance
            runs.append(polished_steps(*told))
        if self.appearance is not None and self.drawn is not None:
            firsts = [numbers.index(number) for number in range(len(targets))]
            runs.append(
                layout_steps(
                    model, whole, begun.rows(firsts), targets, settings,
                    self.appearance, self.drawn,
                    held=limits.held,
                    beyond=None if beyond is None else beyond.rows(firsts),
                )
            )  # fmt: skip
        return runs, search


@torch.no_grad()
def _narrowed(
    model: DiffusionModel,
    source: Source,
    step: SwapStep,
    targets: Sequence[Target],
    settings: SwapSettings,
    numbers: Sequence[int],
) -> tuple[Float[Tensor, "k 1 h w"] | None, Beyond | None]:
    """The mask of a step, no wider than the subjects of its pictures: refining would fill it. And
    the parts of the new subjects that stand out above the old outline, which are in the mask.

    targets: of the step's rows. numbers: which of the swap's targets these are.
    """
    old = source.subject
    if step.mask is None or settings.where != "subject" or old is None:
        return step.mask, None
    pictures, limits = model.decode(step.target), limits_for(targets, settings)
    both = BothSubjects.found(model, old.to(pictures), pictures, targets)
    beyond = None
    if limits.above:
        redrawn = model.decode(source.inversion.trajectory[:1])
        beyond = Beyond.shared(both.beyond(pictures, redrawn, limits), step.target, numbers)
    parts = torch.zeros_like(both.new) if beyond is None else beyond.parts
    return both.cells(step.mask, limits, parts), beyond
