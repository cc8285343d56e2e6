"""What a step of a drag reads and gives: tensors, and nothing that the host must know first."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from understudy.drag.adam import Rate
from understudy.drag.state import Anchor, State


@dataclass(frozen=True, eq=False)
class StepInputs:
    """See `State`. anchor: with its features; None = this step's. memory: the tracker's own."""

    moving_ws: Float[Tensor, "1 rows w_dim"]
    first: Float[Tensor, "1 rows w_dim"]
    second: Float[Tensor, "1 rows w_dim"]
    points: Float[Tensor, "n 2"]
    targets: Float[Tensor, "n 2"]
    rate: Rate
    anchor: Anchor | None
    memory: object = None

    @classmethod
    def of(cls, state: State, learning_rate: float) -> StepInputs:
        """What the next step of a state reads."""
        moving_ws = state.moving_ws.detach()
        rate = Rate.of(state.count + 1, learning_rate, moving_ws)
        return cls(
            moving_ws, state.first, state.second, state.points, state.targets, rate, state.anchor,
            state.memory,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class StepOutputs:
    """numbers: `packed` of what the step saw. points: where the handles were found.

    moving_ws, first, second: after the optimiser's step. anchor: one that the step made, as there
    was none.
    """

    numbers: Float[Tensor, " numbers"]
    points: Float[Tensor, "n 2"]
    moving_ws: Float[Tensor, "1 rows w_dim"]
    first: Float[Tensor, "1 rows w_dim"]
    second: Float[Tensor, "1 rows w_dim"]
    anchor: Anchor | None = None
    memory: object = None
