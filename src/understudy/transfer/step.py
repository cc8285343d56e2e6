"""What is yielded after each denoising step, and the stochastic noise that a step may add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.device_copies import chosen
from understudy.diffusion.sampler import drawn, noise_streams
from understudy.models.interface import DiffusionModel
from understudy.transfer.blend import Blend
from understudy.transfer.schedule import Swaps

AROUND = 1_000_003  # added to the seed for the noise around the targets


@dataclass(frozen=True)
class SwapStep:
    """One finished step of a swap.

    index counts from 0 to total - 1; time is the one the network was told. targets are the numbers
    of those still in the run, k of them; target "k c h w" and source "1 c h w" are the latents
    after the step (source: None once nothing reads it any more), clean "k c h w" the pictures'
    latents as far as they can be told now. swaps is what each took from the source, mask
    "k 1 h w" where the target was kept, nfe the network evaluations of the step. begun: the
    picture from which the last steps of each row were repeated, "swap", "photo" or "layout"; () =
    no steps were.
    """

    index: int
    total: int
    time: float
    targets: tuple[int, ...]
    target: Float[Tensor, "k c h w"]
    clean: Float[Tensor, "k c h w"]
    source: Float[Tensor, "1 c h w"] | None
    swaps: tuple[Swaps, ...]
    mask: Float[Tensor, "m 1 h w"] | None
    nfe: int
    begun: tuple[str, ...] = ()

    def rows(self, kept: Sequence[int]) -> SwapStep:
        """The same step of some rows of its latents, in this order; a row may be repeated."""
        mask, kept = self.mask, list(kept)
        return replace(
            self,
            targets=tuple(self.targets[place] for place in kept),
            target=chosen(self.target, kept),
            clean=chosen(self.clean, kept),
            swaps=tuple(self.swaps[place] for place in kept),
            mask=mask if mask is None or len(mask) == 1 else chosen(mask, kept),
            begun=tuple(self.begun[place] for place in kept) if self.begun else (),
        )


@dataclass(frozen=True)
class StochasticNoise:
    """Fresh noise for the targets: a share eta of what a step leaves, times temperature.

    A deterministic replay carries each small mistake of the network to the end; fresh noise lets
    later steps correct it. It replaces what the inversion kept, so it needs a blend around it.
    seed: of the noise of all targets. seeds: one for each target instead; () = `seed` for all.
    """

    eta: float
    temperature: float = 1.0
    seed: int = 0
    seeds: tuple[int, ...] = ()

    def seed_of(self, target: int) -> int:
        """The seed of target number `target`."""
        return self.seeds[target] if self.seeds else self.seed

    def parted(self, alike: Sequence[int]) -> list[int]:
        """`alike` (equal numbers for targets that may share a branch), split by seed."""
        # Targets of different seeds get different noise, so they cannot share a row.
        pairs = [(number, self.seed_of(target)) for target, number in enumerate(alike)]
        return [pairs.index(pair) for pair in pairs]


class FreshNoise:
    """Draws the stochastic noise step by step, from one stream for each seed."""

    def __init__(self, stochastic: StochasticNoise) -> None:
        self.stochastic = stochastic
        self._streams: dict[int, torch.Generator] = {}
        self._around: torch.Generator | None = None

    def next(
        self, targets: Sequence[int], shape: Sequence[int], like: DiffusionModel
    ) -> Float[Tensor, "k c h w"]:
        """The next noise of each of k targets; targets of one seed get the same."""
        seeds = [self.stochastic.seed_of(target) for target in targets]
        for seed in seeds:
            if seed not in self._streams:
                (self._streams[seed],) = noise_streams([seed])
        # Drawn once per seed and step: targets of one seed see the same noise, in any batch.
        noises = {seed: drawn([self._streams[seed]], shape, like=like) for seed in set(seeds)}
        return self.stochastic.temperature * torch.cat([noises[seed] for seed in seeds])

    def noised(
        self, clean: Float[Tensor, "1 c h w"], time: float, model: DiffusionModel
    ) -> Float[Tensor, "1 c h w"]:
        """A photo's latents at a time, with noise from a stream of its own: for what surrounds the
        targets."""
        if self._around is None:
            (self._around,) = noise_streams([self.stochastic.seed + AROUND])
        noise = drawn([self._around], clean.shape[1:], like=model)
        return model.schedule.noised(clean, noise, time)


def around(
    fresh: FreshNoise | None,
    blend: Blend | None,
    source: Float[Tensor, "1 c h w"],
    time: float | None,
    model: DiffusionModel,
) -> Float[Tensor, "1 c h w"]:
    """What a blend keeps outside its mask after a step that ends at `time`: see `Blend.clean`.

    time: None after the last step.
    """
    if fresh is None or blend is None or blend.clean is None or time is None:
        return source
    return fresh.noised(blend.clean, time, model)
