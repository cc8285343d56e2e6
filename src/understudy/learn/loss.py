"""The batch rows of a training step, and its loss.

This module does not know photos, prompts, optimisers nor concepts.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from understudy.diffusion.text import Text
from understudy.models.interface import DiffusionModel

Base = Callable[[], AbstractContextManager[None]]
"""A context in which the model is as it was before training."""


@dataclass(frozen=True)
class Rows:
    """What one step trains on: every row is a latent, the noise to add, a time and a prompt.

    latents: clean, times the scaling factor. noise: standard normal. times: see
    `Schedule`.
    prompts: which of the prompts of `Batches` a row reads. part: 0 for photos, 1 for class images.
    weights: of each row's mean squared error in the loss. mask: how much each place of a row
    counts, None where all count alike. by_base: rows of part 1 are to stay what the untrained model
    makes of them (output preservation), instead of learning their own noise.
    """

    latents: Float[Tensor, "r c h w"]
    noise: Float[Tensor, "r c h w"]
    times: Shaped[Tensor, " r"]
    prompts: Int[Tensor, " r"]
    part: Int[Tensor, " r"]
    weights: Float[Tensor, " r"]
    mask: Float[Tensor, "r 1 h w"] | None = None
    by_base: bool = False

    def __len__(self) -> int:
        return len(self.latents)

    def share(self, number: int, count: int) -> Rows:
        """Share `number` of `count`: every count-th row. Losses of all shares sum to the whole."""
        # Every count-th row, not a block: photos come first in a batch, class images behind them.
        some = slice(number, None, count)
        return Rows(
            self.latents[some],
            self.noise[some],
            self.times[some],
            self.prompts[some],
            self.part[some],
            self.weights[some],
            None if self.mask is None else self.mask[some],
            self.by_base,
        )


def row_losses(
    model: DiffusionModel,
    rows: Rows,
    text: Text,
    base: Base | None = None,
    base_text: Text | None = None,
) -> Float[Tensor, " r"]:
    """The mean squared error of each row, at least in float32 (Ho et al. 2020, eq. 14).

    text: what each row reads. With a mask the mean is over places by their weight in it. base: a
    context in which the model is the untrained one, for rows by_base. base_text: what the rows read
    there; None: `text`, where no text encoder trains.
    """
    noised = model.schedule.noised(rows.latents, rows.noise, rows.times)
    target = model.schedule.target(rows.latents, rows.noise, rows.times)
    # Output preservation: the target of class rows is what the untrained model says. It has no
    # noise of its own, so its weight can be many times that of samples (Li and Hoiem 2016,
    # arXiv:1606.09282, do so for classifiers).
    # Photos come first in every share, so no list of places has to go to the device.
    photos = int((rows.part == 0).sum()) if rows.by_base else len(rows)
    if photos < len(rows) and base is not None:
        kept = slice(photos, None)
        with torch.no_grad(), base(), uncached(noised.device):
            target = target.clone()
            read = text if base_text is None else base_text
            still = model.predict(noised[kept], rows.times[kept], read[kept])
            target[kept] = still.to(target)
    answer = model.predict(noised, rows.times, text)
    # Squares of half-precision differences underflow.
    wide = torch.promote_types(rows.latents.dtype, torch.float32)
    error = (answer.to(wide) - target.to(wide)).square()
    if rows.mask is None:
        return error.flatten(1).mean(1)
    mask = rows.mask.to(wide).expand_as(error)
    # Divided by the sum of the mask, so that a small subject does not weigh less than a large one.
    return (error * mask).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1e-6)


def uncached(device: torch.device) -> AbstractContextManager[object]:
    """autocast as it is, but without its cache of weights.

    The cache goes by the parameter, not by what it holds: weights cast for the untrained pass would
    serve the trained one too, whose loss would then not depend on what was trained.
    """
    kind = device.type
    dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
    return torch.autocast(kind, dtype, enabled, cache_enabled=False)


def part_means(losses: Float[Tensor, " r"], part: Int[Tensor, " r"]) -> tuple[float, float]:
    """The mean loss of photo rows, and of class rows; NaN for a part without rows."""
    # The mean of no rows is NaN, which the log shows as "none".
    photo, klass = (losses[part == number].mean() for number in (0, 1))
    first, second = torch.stack([photo, klass]).tolist()
    return first, second
