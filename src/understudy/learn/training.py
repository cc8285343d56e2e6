"""The one training loop, and the mathematics of its loss.

What is learnt (all weights, or some), from which latents and under which text is the caller's: it
hands over the parameters and a function that draws the next step's rows. This module does not know
photos, prompts, priors or concepts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from understudy.errors import UnderstudyError
from understudy.models.interface import DiffusionModel


@dataclass(frozen=True)
class Rows:
    """What one step trains on: every row is a latent, the noise to add, a timestep and a text.

    latents: clean, times the scaling factor. noise: standard normal. timesteps: 0..999.
    parts: the parts of the loss in the order of their rows (photos, then class): how many rows each
        has, and the weight of its *mean* loss.
    """

    latents: Float[Tensor, "r c h w"]
    noise: Float[Tensor, "r c h w"]
    timesteps: Int[Tensor, " r"]
    text: Float[Tensor, "r tokens width"]
    parts: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class TrainStep:
    """One optimiser step: what was minimised, and the mean loss of each part before weighting."""

    loss: float
    part_losses: tuple[float, ...]
    gradient_norm: float


def target(model: DiffusionModel, rows: Rows) -> Float[Tensor, "r c h w"]:
    """What the network ought to answer: the noise, or the velocity of a v-prediction model."""
    if model.prediction_type == "v_prediction":
        return model.schedule.velocity(rows.latents, rows.noise, rows.timesteps)
    return rows.noise


def row_losses(model: DiffusionModel, rows: Rows) -> Float[Tensor, " r"]:
    """The mean squared error of each row, at least in float32 (Ho et al. 2020, eq. 14)."""
    noised = model.schedule.noised(rows.latents, rows.noise, rows.timesteps)
    answer = model.predict(noised, rows.timesteps, rows.text)
    wide = torch.promote_types(rows.latents.dtype, torch.float32)
    error = answer.to(wide) - target(model, rows).to(wide)
    return error.square().flatten(1).mean(1)


def weighted_sum(
    losses: Float[Tensor, " r"], parts: Sequence[tuple[int, float]]
) -> tuple[Float[Tensor, ""], Float[Tensor, " parts"]]:
    """The sum of the parts' mean losses by their weights, and the means themselves.

    With the parts (photos, 1) and (class pictures, lambda) this is the loss of DreamBooth
    (Ruiz et al. 2023, eq. 2) in the simple weighting w_t of Ho et al.
    """
    means = torch.stack([part.mean() for part in losses.split([count for count, _ in parts])])
    return means @ means.new_tensor([weight for _, weight in parts]), means


def train_steps(
    model: DiffusionModel,
    parameters: Sequence[nn.Parameter],
    draw: Callable[[], Rows],
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float = 1e-2,
    clip: float = 1.0,
    autocast: torch.dtype | None = None,
) -> Iterator[TrainStep]:
    """Train `parameters` by AdamW (Loshchilov & Hutter 2019) for `steps` steps; yield after each.

    draw() gives one step's rows; text it embeds itself may carry gradients. clip is the largest
    norm of the whole gradient. autocast: torch.bfloat16 computes forward and backward in it, over
    weights that stay float32. Raises UnderstudyError at once when loss or gradient is not finite.
    """
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    rate: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay, "fused": fused}
    optimiser = torch.optim.AdamW(parameters, **rate)
    for index in range(steps):
        # Forward and backward.
        with torch.enable_grad():
            with autocasting(model.device, autocast):
                rows = draw()
                losses = row_losses(model, rows)
            total, means = weighted_sum(losses, rows.parts)
            total.backward()

        # Clip, check, step.
        norm = float(nn.utils.clip_grad_norm_(parameters, clip))
        loss = float(total.detach())
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise _diverged(index, steps, loss, norm, learning_rate)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        yield TrainStep(loss, tuple(means.detach().tolist()), norm)


def autocasting(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """torch.autocast in `dtype`, or nothing."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def _diverged(index: int, steps: int, loss: float, norm: float, rate: float) -> UnderstudyError:
    return UnderstudyError(
        f"Learning broke down at step {index + 1} of {steps}: the loss is {loss}, the gradient's "
        f"norm {norm}. The model is as it was before. A smaller learning rate than {rate:g}, or "
        f"float32 instead of half precision, may help."
    )
