"""`Trainable`: the trained parameters, how prompts are encoded with them, the concept's tensors.

Each method makes a Trainable of a model: all weights (dreambooth.py), low-rank changes (lora.py),
rows of words (textual_inversion.py), words and then low-rank changes (pivotal.py), a tail behind
the prompt (hiper.py). The loop knows no more.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from understudy.diffusion.text import Text


@dataclass(frozen=True)
class Pivot:
    """These parameters train in the first `steps` steps, all others from then on.

    The text then stands still: nothing that trains has a part in it.
    """

    names: frozenset[str]
    steps: int


@dataclass(frozen=True)
class Trainable:
    """What the loop needs of a method.

    parameters: what trains, by name, float32 or finer. embed: prompts to text, with gradients to
    the parameters if they have a part in it. trains_text: whether they have; text that stands still
    is embedded once. tensors(): the concept's tensors, as the parameters are now. base: a context
    in which the network is the untrained one; None where the method has none. rates: learning rates
    of parameters that have one of their own; they have no weight decay. pivot: None = all
    parameters train in every step.
    """

    parameters: Mapping[str, nn.Parameter]
    embed: Callable[[Sequence[str]], Text]
    trains_text: bool
    tensors: Callable[[], dict[str, Tensor]]
    base: Callable[[], AbstractContextManager[None]] | None = None
    rates: Mapping[str, float] = field(default_factory=dict[str, float])
    pivot: Pivot | None = None

    def at(self, step: int) -> bool:
        """Let the parameters of a step ask for gradients, no others; whether text trains in it."""
        if self.pivot is None:
            return self.trains_text
        first = step < self.pivot.steps
        # Without a gradient AdamW leaves a parameter and its moments as they are, so a stage starts
        # with moments of its own.
        for name, parameter in self.parameters.items():
            parameter.requires_grad_((name in self.pivot.names) == first)
        return first


@contextmanager
def holding(
    parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor] | None
) -> Generator[None]:
    """The parameters have these values inside the block, such as their exponential moving average
    (EMA)."""
    if values is None:
        yield
        return
    own = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            # Tensors are swapped, not copied: no memory for a third set of weights.
            parameter.data = values[name]
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = own[name]


def average(
    averages: dict[str, Tensor], parameters: Mapping[str, nn.Parameter], decay: float, step: int
) -> None:
    """Move the EMA towards the parameters, quicker at the start: after step n (from 1)
    by at most 1 - (1 + n) / (10 + n)."""
    # Without the ramp the average would be dominated by the untrained weights for 1 / (1 - decay)
    # steps.
    keep = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for name, parameter in parameters.items():
            averages[name].lerp_(parameter.data, 1 - keep)


def widest(dtype: torch.dtype) -> torch.dtype:
    """float32, or `dtype` where that is finer: what weights are kept in while they train."""
    return torch.promote_types(dtype, torch.float32)
