"""Runs of a swap one after the other, the rows of their last steps put together as candidates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from understudy.transfer.step import SwapStep


def chained(runs: Sequence[Iterator[SwapStep]], begin: int, total: int) -> Iterator[SwapStep]:
    """The steps of all runs, numbered from `begin`; the last one has the last rows of every run.

    total: number of steps of the whole swap, those before `begin` included.
    """
    ends = list[SwapStep]()
    for run in runs:
        step = None
        for step in run:
            if begin < total - 1:
                yield replace(step, index=begin, total=total)
            begin += 1
        assert step is not None, "a run has steps"
        ends.append(step)
    yield replace(joined(ends), index=total - 1, total=total)


def joined(steps: Sequence[SwapStep]) -> SwapStep:
    """The last of these steps with the rows of all."""
    if len(steps) == 1:
        return steps[0]
    masks = [
        step.mask.expand(len(step.targets), -1, -1, -1) for step in steps if step.mask is not None
    ]
    return replace(
        steps[-1],
        targets=tuple(number for step in steps for number in step.targets),
        target=torch.cat([step.target for step in steps]),
        clean=torch.cat([step.clean for step in steps]),
        swaps=tuple(taken for step in steps for taken in step.swaps),
        mask=torch.cat(masks) if masks else None,
        begun=tuple(one for step in steps for one in step.begun),
    )
