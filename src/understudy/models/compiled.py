"""Compiles a network with torch.compile, and falls back to running it as it is where that fails.

Inside the network nothing but arithmetic happens (see `unet/planned_call.py`), so each kind of
step is one graph. A graph is compiled again for another batch, another size of the latents or
another kind of plan, never for another step or another prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import nn

KINDS = 64  # graphs of one network: sizes, batches and kinds of steps; PyTorch's own limit is 8

# Calls of the network from which compiling pays on a GPU: compiling takes about a minute when
# nothing is cached and saves some 50 ms of a call in float32. An estimate, until measured with
# `scripts/bench gpu`. On a CPU a compiled call of the built-in U-Net is not quicker (0.97 s against
# 0.89 s for ten), so there it never pays.
PAYS_FROM = 1200


def compiling_pays(device: torch.device, calls: int) -> bool:
    """Whether a job of so many calls of the network ends sooner when the network is compiled."""
    return device.type == "cuda" and calls >= PAYS_FROM


class Compiled:
    """A network's call, compiled; run as it is from the first failure on.

    failure: why it was not compiled, one line, or "". backend: as of torch.compile; None = its own.
    """

    without = "uncompiled"

    def __init__(self, network: nn.Module, backend: str | None = None) -> None:
        self.network, self.backend, self.failure = network, backend, ""
        how: dict[str, Any] = {} if backend is None else {"backend": backend}
        self._call: Callable[..., Any] = torch.compile(
            network, fullgraph=True, dynamic=False, **how
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What network(*args, **kwargs) gives, up to rounding."""
        if self.failure:
            return self.network(*args, **kwargs)
        from torch._dynamo import config
        from torch._dynamo.exc import TorchDynamoException

        limits = {"recompile_limit": KINDS, "accumulated_recompile_limit": 4 * KINDS}
        try:
            with cast(Any, config).patch(limits):
                return self._call(*args, **kwargs)
        except TorchDynamoException as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self.failure = reason[:200]
            return self.network(*args, **kwargs)


@runtime_checkable
class Compilable(Protocol):
    """A model whose network can be compiled."""

    def compile(self, on: bool = True, *, backend: str | None = None) -> Compiled | None:
        """Run the network compiled from now on, or as it is (None)."""
        ...


def recompiled(
    before: Compiled | None, network: nn.Module, on: bool, backend: str | None
) -> Compiled | None:
    """The compiled call of a network: the one from before where there is one; None for `on` False.

    One that failed is tried again.
    """
    if not on:
        return None
    fits = before is not None and not before.failure and before.backend == backend
    return before if fits else Compiled(network, backend)
