"""The optimiser: PyTorch's fused AdamW (Loshchilov & Hutter 2019), or bitsandbytes' in 8 bits.

Its state as named tensors, so that a checkpoint can hold it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from understudy.errors import ConceptError, ExtraMissing


def adamw(
    parameters: Mapping[str, nn.Parameter],
    *,
    learning_rate: float,
    weight_decay: float,
    eight_bit: bool = False,
    rates: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """AdamW over the parameters; `eight_bit` keeps its moments in a quarter of the memory.

    rates: of parameters with a learning rate of their own, which have no weight decay.

    Raises ExtraMissing where 8 bits are wanted and bitsandbytes is not installed.
    """
    how: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay}
    own = rates or {}
    # Decay would pull rows towards zero, which is not where words are.
    groups: list[Any] = [{"params": [p for name, p in parameters.items() if name not in own]}]
    groups += [{"params": [parameters[name]], "lr": rate, "weight_decay": 0.0}
               for name, rate in own.items()]  # fmt: skip
    groups = [group for group in groups if group["params"]]
    if eight_bit:
        try:
            from bitsandbytes.optim import AdamW8bit  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ExtraMissing("eightbit", "--optimiser adamw8bit") from error
        return cast(torch.optim.Optimizer, AdamW8bit(groups, **how))
    # One kernel for all parameters; other devices do not have it.
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters.values())
    return torch.optim.AdamW(groups, **how, fused=fused)


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything it remembers, as "number.name" of the parameter's number; plain numbers too."""
    state = cast(dict[int, dict[str, Any]], optimiser.state_dict()["state"])
    return {
        f"{number}.{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for number, values in state.items()
        for name, value in values.items()
    }


def restore(optimiser: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """The reverse of `optimiser_state`; ConceptError where the parameters are not as many."""
    whole = optimiser.state_dict()
    remembered: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        number, _, name = key.partition(".")
        remembered.setdefault(int(number), {})[name] = value.clone()
    known = [number for group in whole["param_groups"] for number in group["params"]]
    if not remembered.keys() <= set(known):
        raise ConceptError(
            "The checkpoint belongs to another method: its optimiser state does not fit."
        )
    optimiser.load_state_dict({**whole, "state": remembered})
