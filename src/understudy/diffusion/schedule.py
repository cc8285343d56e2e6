"""The `Schedule` protocol: how noise enters a latent, and how a network's output removes it.

A time is a number that the network is told; a schedule maps it to the two coefficients of the
forward process, x_t = signal(t) * clean + noise(t) * eps. Samplers and inversions walk consecutive
pairs of `times` and never ask which schedule they have. Implementations: ddpm.py, flow.py. Knows
latents and numbers only; knows nothing of models, prompts or attention.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Time = float | Tensor
"""One time for all rows, or a tensor "rows" with a time for each."""


@runtime_checkable
class Schedule(Protocol):
    """A noise schedule together with what the network was trained to predict."""

    @property
    def identity(self) -> str:
        """SHA-256 of all that decides times, coefficients and the meaning of an output."""
        ...

    def times(self, steps: int, cells: int | None = None) -> tuple[float, ...]:
        """The steps + 1 times of a sampling run, from noise to the clean end.

        The network is evaluated at all but the last. cells: height * width of the latents, for
        schedules that depend on the resolution. Raises InputError for an impossible step count.
        """
        ...

    def signal(self, time: float) -> float:
        """Coefficient of the clean latents, to double precision."""
        ...

    def noise(self, time: float) -> float:
        """Coefficient of the noise, to double precision."""
        ...

    def noised(
        self, clean: Float[Tensor, "r c h w"], noise: Float[Tensor, "r c h w"], time: Time
    ) -> Float[Tensor, "r c h w"]:
        """signal(t) * clean + noise(t) * noise, of clean's dtype."""
        ...

    def target(
        self, clean: Float[Tensor, "r c h w"], noise: Float[Tensor, "r c h w"], time: Time
    ) -> Float[Tensor, "r c h w"]:
        """What the network is trained to output."""
        ...

    def denoised(
        self, latents: Float[Tensor, "r c h w"], output: Float[Tensor, "r c h w"], time: Time
    ) -> tuple[Float[Tensor, "r c h w"], Float[Tensor, "r c h w"]]:
        """The estimates of the clean latents and of the noise, from the network's output."""
        ...

    def moved(
        self,
        latents: Float[Tensor, "r c h w"],
        output: Float[Tensor, "r c h w"],
        start: float,
        end: float,
        *,
        at: float,
    ) -> Float[Tensor, "r c h w"]:
        """Latents of time `start` brought to time `end`, in either direction, without fresh noise.

        at: the time the network was told when it gave the output: start when denoising, end when
        inverting.
        """
        ...

    def fresh_noise(self, start: float, end: float) -> float:
        """Standard deviation of the fresh noise in one step of ancestral sampling (eta = 1)."""
        ...

    def draw_times(
        self, count: int, generator: torch.Generator, cells: int | None = None
    ) -> Tensor:
        """Random training times "count", drawn on the CPU."""
        ...

    def even_times(self, count: int) -> Tensor:
        """`count` times spread evenly over training, for a validation loss."""
        ...

    def time_at(self, share: float) -> float:
        """The time at a share of the whole range: 0 is the clean end, 1 the noisy one."""
        ...

    def min_snr(self, times: Tensor, gamma: float) -> Float[Tensor, " r"]:
        """Loss weights of Min-SNR (Hang et al. 2023, arXiv:2303.09556).

        min(SNR, gamma) times the squared error of the clean latents, written as a factor on the
        squared error of the network's output. float32.
        """
        ...


def moves(schedule: Schedule, start: float, end: float) -> bool:
    """Whether two times differ in noise level, so that a step between them changes anything."""
    return schedule.noise(start) != schedule.noise(end)


def wide(values: Tensor) -> Tensor:
    """The same values in float32, or in their own dtype where that is finer."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
