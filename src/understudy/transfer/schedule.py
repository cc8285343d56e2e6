"""Which step swaps what, in whole steps.

Knows numbers of steps only; photoswap.py acts on them. Photoswap (Gu et al. 2023,
arXiv:2305.18286, Algorithm 1) swaps three things in the first steps of a run: phi, the output of
self-attention; M, the map of self-attention; A, the map of cross-attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from understudy.errors import InputError
from understudy.invert.source import Part, Parts

Share = int | float


@dataclass(frozen=True)
class Swaps:
    """What one step takes from the source."""

    self_output: bool
    self_map: bool
    cross_map: bool

    @property
    def any(self) -> bool:
        """Whether the step needs the source at all."""
        return self.self_output or self.self_map or self.cross_map

    @property
    def parts(self) -> Parts:
        """What the step reads of the source's features."""
        named: tuple[tuple[bool, Part], ...] = (
            (self.self_output, "output"),
            (self.self_map, "map"),
            (self.cross_map, "cross"),
        )
        return frozenset(part for wanted, part in named if wanted)


@dataclass(frozen=True)
class SwapSchedule:
    """The steps that take each feature from the source, counted from 0 (the noisiest).

    self_output: phi, for both halves of guidance; self_map: M and cross_map: A, for the
    conditional half. Where phi is swapped M changes nothing.
    """

    steps: int
    self_output: range
    self_map: range
    cross_map: range

    def at(self, index: int) -> Swaps:
        """What step `index` swaps."""
        return Swaps(
            self_output=index in self.self_output,
            # phi replaces the whole output of the layer, so a swapped map would not show.
            self_map=index in self.self_map and index not in self.self_output,
            cross_map=index in self.cross_map,
        )

    @property
    def last(self) -> int:
        """The last step that swaps anything; -1 where none does."""
        return max((i for i in range(self.steps) if self.at(i).any), default=-1)


def first_steps(
    steps: int,
    self_output: Share,
    self_map: Share,
    cross_map: Share,
    *,
    sigmas: Sequence[float] | None = None,
) -> SwapSchedule:
    """The paper's schedule: each feature for its own number of first steps, independently.

    Args:
        self_output, self_map, cross_map: lambda_phi, lambda_M, lambda_A; a whole number counts
            steps (more than there are means all), a fraction is a share of the run.
        sigmas: the times of a flow model, whose steps are uneven: a fraction f is then the share
            of the noise that is removed, the steps that begin above sigma = 1 - f.

    Raises:
        InputError: a share that is negative, or a fraction above 1.
    """
    counts = (
        _count("self_output", self_output, steps, sigmas),
        _count("self_map", self_map, steps, sigmas),
        _count("cross_map", cross_map, steps, sigmas),
    )
    return SwapSchedule(steps, *(range(count) for count in counts))


def _count(name: str, share: Share, steps: int, sigmas: Sequence[float] | None = None) -> int:
    if share < 0 or (isinstance(share, float) and share > 1):
        raise InputError(
            f"{name} must be a number of steps from 0, or a fraction from 0.0 to 1.0. Got {share}."
        )
    if isinstance(share, int):
        return min(share, steps)
    # Steps of flow models are uneven: a share of the run is a share of the noise, not of the steps.
    if sigmas is not None:
        return sum(sigma > 1 - share + 1e-9 for sigma in sigmas[:steps])
    # A hair is added so that 0.58 of 50 steps is 29 of them, not 28.
    return min(int(share * steps + 1e-9), steps)
