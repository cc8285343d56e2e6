"""Confidence intervals, pairwise wins, majorities and agreement.

Plain numbers in, plain numbers out; nothing here knows what was measured.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from understudy.errors import InputError

RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean and its bootstrap interval [low, high]; NaN where nothing can be said.

    count: values averaged; units: what was resampled (subjects, or cases).
    """

    mean: float
    low: float
    high: float
    count: int
    units: int


def estimate(
    values: Sequence[float],
    units: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Mean with a percentile bootstrap interval (Efron 1979), of the values that are finite.

    units: values of one unit (the cases of one subject) are drawn together, because they share
    their luck; without units each value is its own. A single unit tells nothing of its spread, so
    that its interval is NaN.
    """
    names = list(range(len(values))) if units is None else list(units)
    kept = [(v, u) for v, u in zip(values, names, strict=True) if math.isfinite(v)]
    if not kept:
        return Estimate(math.nan, math.nan, math.nan, 0, 0)
    order = {unit: k for k, unit in enumerate(dict.fromkeys(unit for _, unit in kept))}
    sums, counts = np.zeros(len(order)), np.zeros(len(order))
    for value, unit in kept:
        sums[order[unit]] += value
        counts[order[unit]] += 1
    mean = float(sums.sum() / counts.sum())
    if len(order) < 2:
        return Estimate(mean, math.nan, math.nan, len(kept), 1)
    drawn = np.random.default_rng(seed).integers(len(order), size=(resamples, len(order)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(mean, float(low), float(high), len(kept), len(order))


@dataclass(frozen=True)
class Duel:
    """How often the first of two beat the second, case by case."""

    wins: int
    ties: int
    losses: int

    @property
    def count(self) -> int:
        return self.wins + self.ties + self.losses

    def shares(self) -> tuple[float, float, float]:
        """Win, tie, lose in per cent."""
        return tuple(100 * n / max(self.count, 1) for n in (self.wins, self.ties, self.losses))  # pyright: ignore[reportReturnType]


def duel(ours: Sequence[float], theirs: Sequence[float], *, tie: float, higher: bool) -> Duel:
    """Compare pair by pair; a difference of at most `tie` is a tie, a NaN on one side loses."""
    results: Counter[int] = Counter()
    for a, b in zip(ours, theirs, strict=True):
        if math.isnan(a) or math.isnan(b):
            results[int(math.isnan(b)) - int(math.isnan(a))] += 1
        elif abs(a - b) <= tie:
            results[0] += 1
        else:
            results[1 if (a > b) == higher else -1] += 1
    return Duel(results[1], results[0], results[-1])


def majority(votes: Sequence[str], undecided: str) -> str:
    """What more than half of the voters said; `undecided` if nothing was."""
    if not votes:
        return undecided
    answer, count = Counter(votes).most_common(1)[0]
    return answer if 2 * count > len(votes) else undecided


def fleiss_kappa(tables: Sequence[Mapping[str, int]]) -> float:
    """Agreement beyond chance of several raters (Fleiss 1971): 1 = always, 0 = as by chance.

    tables: for each question how often each answer was given; every question needs as many votes
    as the others, at least two. NaN if all votes are the same answer, or there is no question.
    """
    sizes = {sum(table.values()) for table in tables}
    if not tables:
        return math.nan
    if len(sizes) != 1 or min(sizes) < 2:
        raise InputError(f"Fleiss' kappa needs equally many votes, two or more. Got {sizes}.")
    n = sizes.pop()
    answers = sorted({answer for table in tables for answer in table})
    counts = np.array([[table.get(answer, 0) for answer in answers] for table in tables], float)
    agreed = ((counts**2).sum(axis=1) - n) / (n * (n - 1))
    chance = float(((counts.sum(axis=0) / counts.sum()) ** 2).sum())
    return (float(agreed.mean()) - chance) / (1 - chance) if chance < 1 else math.nan
