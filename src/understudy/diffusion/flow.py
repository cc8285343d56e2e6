"""The rectified-flow schedule of SD3, FLUX, Qwen-Image, Z-Image and others.

x_sigma = (1 - sigma) clean + sigma noise, and the network outputs the velocity v = noise - clean
(Liu et al. 2022, arXiv:2209.03003; Esser et al. 2024, arXiv:2403.03206). The time is sigma, from 1
(noise) to 0 (clean). A step is x + (sigma' - sigma) v. Nothing here divides by the signal, which is
0 at the first time of every run. Shifts and grids are those of diffusers'
FlowMatchEulerDiscreteScheduler.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import exp
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.device_copies import sent
from understudy.diffusion.schedule import Time, wide
from understudy.errors import InputError

LONGEST = 1000
"""The most steps that are accepted: more do not change a picture in float32."""


@dataclass(frozen=True)
class DynamicShift:
    """A shift that grows with the number of image tokens of the latents.

    mu is linear in the tokens: base_shift at base_tokens, max_shift at max_tokens. The shift is
    exp(mu) ("exponential") or mu itself ("linear").
    """

    base_shift: float = 0.5
    max_shift: float = 1.15
    base_tokens: int = 256
    max_tokens: int = 4096
    kind: Literal["exponential", "linear"] = "exponential"

    def at(self, tokens: float, steps: int = 0) -> float:
        """The shift for so many image tokens; steps do not matter here."""
        # More tokens need more noise to hide the same structure (Esser et al. 2024, section 5.3.2).
        slope = (self.max_shift - self.base_shift) / (self.max_tokens - self.base_tokens)
        mu = self.base_shift + slope * (tokens - self.base_tokens)
        return exp(mu) if self.kind == "exponential" else mu


@dataclass(frozen=True)
class EmpiricalShift:
    """FLUX.2's shift: exp(mu), mu fitted by its authors to the number of tokens and of steps.

    mu is linear in the tokens, with one line for 10 steps and one for 200, and linear in the steps
    between them; above 4300 tokens the line for 200 steps counts alone.
    """

    at_10: tuple[float, float] = (8.73809524e-05, 1.89833333)
    at_200: tuple[float, float] = (0.00016927, 0.45666666)
    most: int = 4300

    def at(self, tokens: float, steps: int) -> float:
        """The shift for so many image tokens and steps."""
        few, many = (slope * tokens + start for slope, start in (self.at_10, self.at_200))
        mu = many if tokens > self.most else many + (many - few) * (steps - 200) / 190
        return exp(mu)


TRAINED = 50  # steps that FLUX.2's shift is taken for where no run is meant, as in learning


@dataclass(frozen=True)
class FlowSchedule:
    """Rectified flow. See `Schedule` for the methods.

    Attributes:
        shift: sigma becomes shift * sigma / (1 + (shift - 1) * sigma); a DynamicShift depends on
            the resolution, an EmpiricalShift on the number of steps as well.
        grid: the sigmas before shifting, of n steps. "uniform" is 1 to 1/n (FLUX, Qwen-Image,
            Z-Image); "trained" is 1 to the smallest sigma of the training table, which has been
            shifted once already and is shifted again (SD3).
        cells_per_token: latent cells in one image token (patch size squared).
        terminal: the last sigma before 0 is moved to this value by stretching; None = left alone.
        trained_steps: length of the training table.
    """

    shift: float | DynamicShift | EmpiricalShift = 1.0
    grid: Literal["uniform", "trained"] = "uniform"
    cells_per_token: int = 1
    terminal: float | None = None
    trained_steps: int = 1000

    @property
    def identity(self) -> str:
        return hashlib.sha256(f"flow {self}".encode()).hexdigest()

    def times(self, steps: int, cells: int | None = None) -> tuple[float, ...]:
        """See `Schedule.times`. From 1 to 0, both included."""
        if not 1 <= steps <= LONGEST:
            raise InputError(f"--steps must be from 1 to {LONGEST}. Got {steps}.")
        shift = self._shift(cells, steps)
        # diffusers computes SD3's grid from its training table, which is shifted, and shifts it
        # again.
        last = 1 / steps if self.grid == "uniform" else self._smallest()
        stride = (1 - last) / max(steps - 1, 1)
        sigmas = [shifted(1 - i * stride, shift) for i in range(steps)]
        if self.terminal is not None and steps > 1:
            # Stretched about sigma = 1, which stays in place, so that the last sigma before 0 is
            # the terminal one.
            scale = (1 - sigmas[-1]) / (1 - self.terminal)
            sigmas = [1 - (1 - sigma) / scale for sigma in sigmas]
        return (*sigmas, 0.0)

    def signal(self, time: float) -> float:
        return 1 - time

    def noise(self, time: float) -> float:
        return time

    def noised(
        self, clean: Float[Tensor, "r c h w"], noise: Float[Tensor, "r c h w"], time: Time
    ) -> Float[Tensor, "r c h w"]:
        sigma = _sigma(time, clean)
        return ((1 - sigma) * wide(clean) + sigma * wide(noise)).to(clean.dtype)

    def target(
        self, clean: Float[Tensor, "r c h w"], noise: Float[Tensor, "r c h w"], time: Time
    ) -> Float[Tensor, "r c h w"]:
        """v = noise - clean, at every time."""
        return noise - clean

    def denoised(
        self, latents: Float[Tensor, "r c h w"], output: Float[Tensor, "r c h w"], time: Time
    ) -> tuple[Float[Tensor, "r c h w"], Float[Tensor, "r c h w"]]:
        """x - sigma v and x + (1 - sigma) v."""
        sigma = _sigma(time, latents)
        x, v = wide(latents), wide(output)
        # x = (1 - sigma) clean + sigma noise and v = noise - clean, solved for both. Neither
        # divides by the signal, which is 0 at sigma = 1.
        clean, noise = x - sigma * v, x + (1 - sigma) * v
        return clean.to(latents.dtype), noise.to(latents.dtype)

    def moved(
        self,
        latents: Float[Tensor, "r c h w"],
        output: Float[Tensor, "r c h w"],
        start: float,
        end: float,
        *,
        at: float,
    ) -> Float[Tensor, "r c h w"]:
        """The Euler step, whatever time the velocity was evaluated at."""
        # The path is straight under a constant velocity, so the velocity need not be split into
        # clean latents and noise.
        return latents + (end - start) * output

    def fresh_noise(self, start: float, end: float) -> float:
        """All of the noise: what diffusers calls stochastic sampling."""
        return end

    def draw_times(
        self, count: int, generator: torch.Generator, cells: int | None = None
    ) -> Float[Tensor, " count"]:
        """Logit-normal (0, 1) sigmas (Esser et al. 2024, section 3.1), shifted as in sampling."""
        # Logit-normal times lie mostly in the middle, where the velocity is hardest to predict.
        drawn = torch.randn(count, generator=generator, dtype=torch.float64).sigmoid()
        shift = self._shift(cells)
        return (shift * drawn / (1 + (shift - 1) * drawn)).float()

    def even_times(self, count: int) -> Float[Tensor, " count"]:
        return (torch.arange(count) * 2 + 1) / (2 * count)

    def time_at(self, share: float) -> float:
        return share

    def min_snr(self, times: Tensor, gamma: float) -> Float[Tensor, " r"]:
        """See `Schedule.min_snr`: an error of v is 1 / sigma^2 times that of the clean latents."""
        sigma = times.double()
        # SNR = ((1 - sigma) / sigma)^2; the factor 1 / sigma^2 of the error cancels its
        # denominator.
        return ((1 - sigma).square().minimum(gamma * sigma.square())).float()

    def _shift(self, cells: int | None, steps: int = TRAINED) -> float:
        if isinstance(self.shift, float | int):
            return self.shift
        if cells is None:
            raise ValueError("this schedule depends on the resolution: give cells.")
        return self.shift.at(cells / self.cells_per_token, steps)

    def _smallest(self) -> float:
        """The smallest sigma of the training table: a dynamic shift leaves the table unshifted."""
        first = 1 / self.trained_steps
        return shifted(first, self.shift) if isinstance(self.shift, float | int) else first


def shifted(sigma: float, shift: float) -> float:
    """A sigma moved towards the noise (Esser et al. 2024, eq. 23); 0 and 1 stay where they are."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def _sigma(time: Time, like: Tensor) -> Tensor | float:
    """A float, or (rows, 1, 1, 1) of at least float32 on like's device."""
    if not isinstance(time, Tensor):
        return time
    dtype = torch.promote_types(like.dtype, torch.float32)
    return sent(time, like.device, dtype).reshape(-1, 1, 1, 1)
