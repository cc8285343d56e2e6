"""The variance-preserving schedule of Stable Diffusion 1.x, 2.x and XL (Ho et al. 2020, eq. 4).

Times are the integers 0 .. length - 1. A negative time stands for the clean end of sampling.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.device_copies import sent
from understudy.diffusion.schedule import Time, wide
from understudy.errors import InputError, ModelError

PREDICTIONS = ("epsilon", "v_prediction", "sample")
"""What the network outputs: the noise, the velocity, or the clean latents."""

SPACINGS = ("leading", "trailing", "linspace")
"""How sampling timesteps are chosen (Lin et al. 2023, arXiv:2305.08891, table 2)."""


@dataclass(frozen=True)
class DDPMSchedule:
    """x_t = sqrt(a_t) clean + sqrt(1 - a_t) noise. See `Schedule` for the methods.

    Attributes:
        alphas_cumprod: a_t for every training timestep, float32 as diffusers computes it (its
            rounding is part of a published model).
        steps_offset: 0 or 1, added to every sampling timestep.
        set_alpha_to_one: whether the clean end has a = 1, or a of timestep 0.
        prediction: what the network outputs, one of PREDICTIONS.
        timestep_spacing: one of SPACINGS: "leading" is i * (T // steps) + offset, "trailing" is
            round(T - i * T / steps) - 1, "linspace" goes from T - 1 to 0.

    Raises:
        ModelError: an unknown prediction type.
    """

    alphas_cumprod: Float[Tensor, " timesteps"]
    steps_offset: int = 0
    set_alpha_to_one: bool = False
    prediction: str = "epsilon"
    timestep_spacing: str = "leading"

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            raise ModelError(
                f"the model predicts {self.prediction!r}. Supported prediction types: "
                f"{', '.join(PREDICTIONS)}."
            )
        if self.timestep_spacing not in SPACINGS:
            raise ModelError(
                f"the timesteps are spaced as {self.timestep_spacing!r}. Supported: "
                f"{', '.join(SPACINGS)}."
            )

    @property
    def length(self) -> int:
        """Number of training timesteps, normally 1000."""
        return self.alphas_cumprod.shape[0]

    @property
    def identity(self) -> str:
        facts = (self.prediction, self.steps_offset, self.set_alpha_to_one, self.timestep_spacing)
        alphas = self.alphas_cumprod.detach().float().cpu().contiguous().numpy()
        return hashlib.sha256(f"ddpm {facts}".encode() + alphas.tobytes()).hexdigest()

    def times(self, steps: int, cells: int | None = None) -> tuple[int, ...]:
        """See `Schedule.times`. The last is negative, or 0 for an offset of 1 and a stride of 1."""
        if not 1 <= steps <= self.length:
            raise InputError(f"--steps must be from 1 to {self.length}. Got {steps}.")
        # Lin et al. 2023, table 2. "trailing" starts at the last timestep, where a schedule with
        # zero terminal SNR has no signal left.
        if self.timestep_spacing == "trailing":
            return (*(round(self.length - i * self.length / steps) - 1 for i in range(steps)), -1)
        if self.timestep_spacing == "linspace":
            apart = (self.length - 1) / max(steps - 1, 1)
            return (*(round(i * apart) for i in reversed(range(steps))), -1)
        # "leading": the published spacing of Stable Diffusion. One step before the first gives the
        # clean end, which is negative unless the offset lifts it to 0.
        stride = self.length // steps
        ascending = [i * stride + self.steps_offset for i in range(-1, steps)]
        if ascending[-1] >= self.length:
            raise InputError(
                f"--steps {steps} reaches past the model's last timestep ({self.length - 1}), "
                f"because its schedule starts at {self.steps_offset}. Ask for fewer steps."
            )
        return tuple(reversed(ascending))

    def alpha(self, time: float) -> float:
        """a_t as a Python float (64 bit, exact); a negative time gives that of the clean end."""
        if time < 0:
            # Stable Diffusion ends at a of timestep 0, not at 1: its last step leaves a trace of
            # noise, and an inversion must start there.
            return 1.0 if self.set_alpha_to_one else self._alphas[0]
        return self._alphas[int(time)]

    @cached_property
    def _alphas(self) -> tuple[float, ...]:
        """a_t as Python floats, read once: a step then never waits for a tensor."""
        return tuple(self.alphas_cumprod.double().tolist())

    def signal(self, time: float) -> float:
        return sqrt(self.alpha(time))

    def noise(self, time: float) -> float:
        return sqrt(1 - self.alpha(time))

    def noised(
        self, clean: Float[Tensor, "r c h w"], noise: Float[Tensor, "r c h w"], time: Time
    ) -> Float[Tensor, "r c h w"]:
        a, s = self._coefficients(time, clean)
        return (a * wide(clean) + s * wide(noise)).to(clean.dtype)

    def target(
        self, clean: Float[Tensor, "r c h w"], noise: Float[Tensor, "r c h w"], time: Time
    ) -> Float[Tensor, "r c h w"]:
        """The noise, the clean latents, or v = sqrt(a) noise - sqrt(1 - a) clean (Salimans & Ho
        2022, arXiv:2202.00512)."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return clean
        a, s = self._coefficients(time, clean)
        return (a * wide(noise) - s * wide(clean)).to(clean.dtype)

    def denoised(
        self, latents: Float[Tensor, "r c h w"], output: Float[Tensor, "r c h w"], time: Time
    ) -> tuple[Float[Tensor, "r c h w"], Float[Tensor, "r c h w"]]:
        a, s = self._coefficients(time, latents)
        x, out = wide(latents), wide(output)
        if self.prediction == "epsilon":
            # Ho et al. 2020, eq. 15, solved for the clean latents.
            clean, noise = (x - s * out) / a, out
        elif self.prediction == "sample":
            clean, noise = out, (x - a * out) / s
        else:
            # v-prediction rotates (clean, noise) by the angle of the time (Salimans & Ho 2022): no
            # division, so it is safe where the signal is 0.
            clean, noise = a * x - s * out, a * out + s * x
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
        """The DDIM step (Song et al. 2020, arXiv:2010.02502, equation 12 with sigma 0).

        The noise is that of the output at time `at`; the clean latents follow from it at `start`.
        """
        clean, noise = self.denoised(latents, output, at)
        # An inversion evaluates the network at `end`, while the latents are at `start`: only the
        # predicted noise is taken from the output.
        if at != start:
            clean = (latents - self.noise(start) * noise) / self.signal(start)
        return self.signal(end) * clean + self.noise(end) * noise

    def fresh_noise(self, start: float, end: float) -> float:
        """The sigma of Song et al. 2020, equation 16, at eta = 1: DDPM's posterior."""
        a, b = self.alpha(start), self.alpha(end)
        return sqrt((1 - b) / (1 - a) * (1 - a / b))

    def draw_times(
        self, count: int, generator: torch.Generator, cells: int | None = None
    ) -> Tensor:
        # On the CPU, so that a seed draws the same times on every device.
        return torch.randint(self.length, (count,), generator=generator)

    def even_times(self, count: int) -> Tensor:
        # The middles of `count` equal parts of the range: no time is the first or the last.
        return (torch.arange(count) * 2 + 1) * self.length // count // 2

    def time_at(self, share: float) -> int:
        return round(share * (self.length - 1))

    def min_snr(self, times: Tensor, gamma: float) -> Float[Tensor, " r"]:
        """See `Schedule.min_snr`: an error of epsilon is SNR times that of the clean latents, an
        error of v is SNR + 1 times."""
        kept = f"snr {gamma}"
        if (kept, times.device) not in self._tables:
            self._tables[kept, times.device] = self._min_snr(gamma).to(times.device)
        return self._tables[kept, times.device][times]

    def _min_snr(self, gamma: float) -> Float[Tensor, " timesteps"]:
        """The weight at every time."""
        alphas = self.alphas_cumprod.double().cpu()
        # Hang et al. 2023: each output has its own factor between its error and that
        # of the clean latents.
        snr = alphas / (1 - alphas)
        if self.prediction == "epsilon":
            return (gamma / snr).clamp(max=1).float()  # 1 also where there is nothing but noise
        if self.prediction == "sample":
            return snr.clamp(max=gamma).float()
        return (snr.clamp(max=gamma) / (snr + 1)).float()

    def _coefficients(self, time: Time, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """signal and noise: floats, or (rows, 1, 1, 1) of at least float32 on like's device."""
        if not isinstance(time, Tensor):
            return self.signal(time), self.noise(time)
        dtype = torch.promote_types(like.dtype, torch.float32)
        which = sent(time, like.device)
        a, s = (self._table(name, like.device, dtype)[which] for name in ("signal", "noise"))
        return a.reshape(-1, 1, 1, 1), s.reshape(-1, 1, 1, 1)

    def _table(self, name: str, device: torch.device, dtype: torch.dtype) -> Tensor:
        """signal or noise of every time, made once for a device: a step then copies nothing."""
        key = f"{name} {dtype}"
        if (key, device) not in self._tables:
            alphas = self.alphas_cumprod.cpu().double()  # roots in double, also for float32 latents
            rows = (alphas if name == "signal" else 1 - alphas).sqrt()
            self._tables[key, device] = rows.to(device, dtype)
        return self._tables[key, device]

    @cached_property
    def _tables(self) -> dict[tuple[str, torch.device], Tensor]:
        return {}
