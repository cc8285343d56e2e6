"""Adam in steps that can be saved and resumed; shared by projection and pivotal tuning."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from understudy.errors import InputError, UnderstudyError

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class Descent:
    """Adam over named tensors, its random draws, and how many steps it has made."""

    def __init__(
        self, tensors: Mapping[str, Tensor], learning_rate: float, randomness: torch.Generator
    ) -> None:
        self.tensors, self.randomness, self.made = dict(tensors), randomness, 0
        self.adam = torch.optim.Adam(list(tensors.values()), lr=learning_rate)

    def draw(self, like: Tensor) -> Tensor:
        """Standard normal numbers in the shape of a tensor, drawn on the CPU."""
        return torch.randn(like.shape, generator=self.randomness).to(like)

    def step(self, loss: Tensor, learning_rate: float | None = None) -> None:
        """One step down. Raises UnderstudyError when the loss is no number."""
        if not bool(torch.isfinite(loss)):
            raise UnderstudyError(
                f"The loss became {loss.item()} after {self.made} steps. Try a lower learning rate."
            )
        gradients = torch.autograd.grad(loss, list(self.tensors.values()), allow_unused=True)
        for tensor, gradient in zip(self.tensors.values(), gradients, strict=True):
            tensor.grad = gradient
        if learning_rate is not None:
            self.adam.param_groups[0]["lr"] = learning_rate
        self.adam.step()
        self.adam.zero_grad()
        self.made += 1

    def kept(self) -> dict[str, Tensor]:
        """Tensors, moments, draws and count as they are now, copied to the CPU."""
        kept = {name: tensor.detach().cpu().clone() for name, tensor in self.tensors.items()}
        for name, tensor in self.tensors.items():
            for moment in MOMENTS if self.adam.state[tensor] else ():
                kept[f"adam.{moment}.{name}"] = self.adam.state[tensor][moment].cpu().clone()
        return {**kept, "made": torch.tensor(self.made), "draws": self.randomness.get_state()}

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Go on from what `kept` gave. Raises InputError where it does not fit."""
        try:
            self._restore(kept)
        except (KeyError, RuntimeError) as error:
            raise InputError(
                f"The saved progress is damaged ({error}). Remove it and start again."
            ) from error

    def _restore(self, kept: Mapping[str, Tensor]) -> None:
        for name, tensor in self.tensors.items():
            tensor.data.copy_(kept[name])
            if f"adam.step.{name}" in kept:
                self.adam.state[tensor] = {
                    moment: kept[f"adam.{moment}.{name}"].to(
                        "cpu" if moment == "step" else tensor.device
                    )
                    for moment in MOMENTS
                }
        self.made = int(kept["made"])
        self.randomness.set_state(kept["draws"])
