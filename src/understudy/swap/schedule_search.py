"""Chooses phi, M, A and the noise: scores candidates part of the way and keeps the best.

Photoswap's authors search a grid for every picture (Gu et al. 2023, arXiv:2305.18286, section 5).
Here the candidates lie on one line, from a loose hold on the source, which lets the subject be
itself, to the paper's, which keeps its pose. They share the source, and each other's steps as long
as their schedules agree. Part of the way through, when the clean picture can be told well enough,
each is judged by who it shows and how it stands. The best two go on, are refined (refine.py), and
the best is left.

Knows latents and schedules; the scorer says what a picture shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.models.interface import DiffusionModel
from understudy.settings import SwapSettings
from understudy.swap.difference import SAMPLES
from understudy.swap.layout import layout_evaluations
from understudy.swap.limits import SAME
from understudy.swap.polish import HELD, polish_count, polish_evaluations
from understudy.swap.refine import REDRAWN, held_count, refine_count, refine_evaluations
from understudy.transfer.appearance import MOST
from understudy.transfer.batch_layout import Branch, branched
from understudy.transfer.blend import Blend
from understudy.transfer.loop import Replay
from understudy.transfer.schedule import Swaps, SwapSchedule, first_steps
from understudy.transfer.source_target import Source, Target
from understudy.transfer.step import StochasticNoise, SwapStep

# Candidates after the settings' own schedule and noise, in the order of their promise: how strong
# the hold is, in units of PAPER (None: the settings' own schedule), and the number of the noise.
TRIALS = (
    (1.0, 0),
    (None, 1),
    (1.0, 1),
    (0.25, 0),
    (None, 2),
    (1.0, 2),
    (1.5, 0),
    (0.0, 0),
)
PAPER = (0.2, 0.5, 0.4)  # phi, M, A as shares of the steps
SCORED_AT = 0.6  # share of the steps after which candidates are judged
FINALISTS = 2  # how many go on to the end, where details can be told: then one is left
LESS = 0.03  # identity: what a candidate that begins with the photo may lack to the best other one
DRAWN_LESS = 0.05  # the same of a candidate that is drawn on the photo's layout
DRAWN_WORSE = 0.07  # and what it may lack in score


@runtime_checkable
class Scorer(Protocol):
    """Whoever looks at pictures in [-1, 1]: the toy world's recogniser, or DINO and the like."""

    def identity(
        self, pictures: Float[Tensor, "b 3 h w"], subject: Float[Tensor, "b 1 h w"] | None = None
    ) -> Float[Tensor, "b d"]:
        """Unit vectors whose cosine says how much two pictures show the same subject.

        subject: a rough mask of the one to look at.
        """
        ...

    def layout(
        self, pictures: Float[Tensor, "b 3 h w"], subject: Float[Tensor, "b 1 h w"] | None = None
    ) -> Float[Tensor, "b n"]:
        """Unit vectors whose cosine says how much two subjects stand alike in the same place."""
        ...


@dataclass(frozen=True)
class ScheduleSearch:
    """A scorer, and what it compares candidates with.

    subject: identities "n d" of pictures of the new subject, by the same scorer.
    photo: the source picture, whose layout is to be kept.
    layout_weight: how many points of identity a whole point of layout is worth.
    """

    scorer: Scorer
    subject: Float[Tensor, "n d"]
    photo: Float[Tensor, "1 3 h w"]
    layout_weight: float = 0.8

    @torch.no_grad()
    def steps(
        self,
        model: DiffusionModel,
        source: Source,
        targets: Sequence[Target],
        settings: SwapSettings,
        *,
        blend: Blend | None,
        stochastic: StochasticNoise | None = None,
    ) -> Iterator[SwapStep]:
        """The steps of a swap whose candidates are narrowed down to FINALISTS for each target.

        `best` then chooses one. Target number t's candidates are the run's targets t * n to
        t * n + n - 1, n of them.
        """
        found = candidates(settings, len(targets))
        plans, count, scored = [one.plan for one in found], len(found), scoring_step(settings)
        if stochastic is not None:
            seeds = tuple(one.seed for one in found) * len(targets)
            stochastic = replace(stochastic, seeds=seeds)
        run = Replay(
            model,
            source,
            [target for target in targets for _ in plans],
            plans * len(targets),
            guidance=settings.guidance,
            blend=None if blend is None else _repeated(blend, count),
            stochastic=stochastic,
        )
        for index in range(settings.steps):
            step = run.step(index)
            yield step
            if index == scored:
                # Dropped candidates cost nothing from here on.
                best = self.best(model, step, count, FINALISTS)
                run.narrow([step.targets[row] for row in best])

    def best(self, model: DiffusionModel, step: SwapStep, count: int, most: int = 1) -> list[int]:
        """The rows of a step with the best candidates of each target, at most so many each.

        count: candidates of each target.
        """
        groups: dict[int, list[int]] = {}
        for row, number in enumerate(step.targets):
            groups.setdefault(number // count, []).append(row)
        if all(len(group) <= most for group in groups.values()):
            return list(range(len(step.targets)))
        scores = self.scores(model, step).tolist()
        return sorted(
            row
            for group in groups.values()
            for row in sorted(group, key=scores.__getitem__, reverse=True)[:most]
        )

    def recognised(
        self, model: DiffusionModel, step: SwapStep, count: int, others: int
    ) -> list[int]:
        """All rows but those of the `others` last ones that show the new subject clearly worse.

        Such a row is kept if its identity is at most LESS below the best of its target's other
        rows.
        count: candidates of each target.
        """
        identity, _ = self.judged(model, step)
        first = len(step.targets) - others
        return [*range(first), *_near(identity, step, count, first, LESS)]

    def preferred(
        self, model: DiffusionModel, step: SwapStep, count: int, others: int
    ) -> list[int]:
        """The `others` last rows alone, for each target of which they show the subject nearly as
        well as its other rows, in nearly the same layout: DRAWN_LESS, DRAWN_WORSE.

        For pictures that are drawn on the photo's layout, which are sharper than all others.
        """
        identity, layout = self.judged(model, step)
        scores, first = identity + self.layout_weight * layout, len(step.targets) - others
        good = set(_near(scores, step, count, first, DRAWN_WORSE))
        good &= set(_near(identity, step, count, first, DRAWN_LESS))
        having = {step.targets[row] // count for row in good}
        rest = [row for row in range(first) if step.targets[row] // count not in having]
        return [*rest, *sorted(good)]

    def scores(self, model: DiffusionModel, step: SwapStep) -> Float[Tensor, " k"]:
        """How good each target of a step would be, as far as it can be told now."""
        identity, layout = self.judged(model, step)
        return identity + self.layout_weight * layout

    def judged(
        self, model: DiffusionModel, step: SwapStep
    ) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
        """Identity and layout of each target of a step, as far as they can be told now."""
        pictures = model.decode(step.clean)
        where = None
        if step.mask is not None:
            size = (int(pictures.shape[-2]), int(pictures.shape[-1]))
            where = F.interpolate(step.mask.float(), size=size).expand(len(pictures), -1, -1, -1)
        return self.seen(pictures, where)

    def seen(
        self, pictures: Float[Tensor, "k 3 h w"], subject: Float[Tensor, "k 1 h w"] | None = None
    ) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
        """How much each picture shows the actor, and how much it keeps the photo's layout.

        subject: a rough mask of whom to look at.
        """
        shown = self.scorer.identity(pictures, subject)
        identity = (shown @ self.subject.to(shown).T).mean(1)
        where = None if subject is None else subject[:1]
        before = self.scorer.layout(self.photo.to(pictures), where)
        return identity, (self.scorer.layout(pictures, subject) * before).sum(1)


@dataclass(frozen=True)
class Candidate:
    """A schedule, and the seed of the fresh noise that it is tried with."""

    plan: SwapSchedule
    seed: int


def candidates(settings: SwapSettings, targets: int = 1) -> list[Candidate]:
    """As many candidates as the budget has room for, and always one: the settings' own.

    Without fresh noise (eta 0) they differ in their schedules only.
    """
    steps, first = settings.steps, settings.noise_seed
    own = first_steps(
        steps, settings.self_output_steps, settings.self_map_steps, settings.cross_map_steps
    )
    found = [Candidate(own, first)]
    for hold, trial in TRIALS:
        counts = [round(min(share * (hold or 0.0), 1.0) * steps) for share in PAPER]
        plan = own if hold is None else first_steps(steps, *counts)
        one = Candidate(plan, first + trial if settings.eta else first)
        if (
            one not in found
            and evaluations_needed([*found, one], settings, targets) <= settings.budget
        ):
            found.append(one)
    return found


def scoring_step(settings: SwapSettings) -> int:
    """The index of the step after which candidates are judged."""
    return max(round(SCORED_AT * settings.steps) - 1, 0)


def evaluations_needed(found: Sequence[Candidate], settings: SwapSettings, targets: int = 1) -> int:
    """At most how many network evaluations the candidates take for so many targets.

    That is for a photo whose path is known: its source and the difference of the prompts included;
    the masks of words come on top.
    """
    halves, nothing = 1 if settings.guidance == 1 else 2, Swaps(False, False, False)
    branches = (Branch(0, tuple(range(len(found))), nothing),)
    seeds = [one.seed for one in found]
    by_words = settings.blend and settings.where == "attention"
    keys, refined = settings.keeps_keys, refine_count(settings)
    rows = SAMPLES * (targets + 1) if settings.blend and not by_words else 0
    for index in range(settings.steps):
        swaps = [one.plan.at(index) for one in found]
        branches = branched(branches, swaps, seeds)
        if index > scoring_step(settings):
            branches = branches[:FINALISTS]
        reads = any(swap.any for swap in swaps) or by_words
        rows += (reads or keys) + (halves - 1) * (keys or any(swap.self_output for swap in swaps))
        rows += halves * len(branches) * targets
    again = min(len(found), FINALISTS) * REDRAWN
    rows += refined * halves if keys else held_count(settings, SAME.held)
    rows += refine_evaluations(settings, again * targets, MOST)
    # Of subjects of different classes and of one; a swap has only one of the two.
    polish, finalists = 0, min(len(found), FINALISTS) * targets
    if polish_count(settings):
        polish = polish_evaluations(settings, finalists, MOST) + held_count(settings, HELD)
    return rows + max(polish, layout_evaluations(settings, targets, MOST, SAME.held))


def _near(
    values: Float[Tensor, " k"], step: SwapStep, count: int, first: int, less: float
) -> list[int]:
    """The rows from `first` on whose value is at most so much below the best before, of the same
    target. count: candidates of each target."""
    found, best = [float(value) for value in values], dict[int, float]()
    for number, value in zip(step.targets[:first], found, strict=False):
        best[number // count] = max(best.get(number // count, value), value)
    rows = range(first, len(step.targets))
    return [row for row in rows if found[row] >= best[step.targets[row] // count] - less]


def _repeated(blend: Blend, count: int) -> Blend:
    """The same blend for each target's candidates."""

    def each(places: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
        return tuple(place for place in places for _ in range(count))

    mask = blend.mask
    return replace(
        blend,
        target_places=each(blend.target_places),
        mask=mask if mask is None or len(mask) == 1 else mask.repeat_interleave(count, 0),
        kept_places=(*blend.kept_places[:1], *each(blend.kept_places[1:])),
    )
