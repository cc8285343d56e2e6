"""The sampler: one step in either direction, guidance, and the sampling and inversion loops.

Loops walk consecutive pairs of a schedule's times, so DDIM (Song et al. 2020, arXiv:2010.02502)
and the Euler steps of rectified flow are one loop; the schedule does the arithmetic. Guidance: Ho &
Salimans 2022, arXiv:2207.12598. Knows models by `Predictor` only; knows no prompts, and decodes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.attention.perturbed import PerturbedRows
from understudy.attention.plan import AttentionControl
from understudy.device_copies import sent
from understudy.diffusion.guidance import Scales, guidance_of, scales_of
from understudy.diffusion.schedule import Schedule, Time, moves, wide
from understudy.diffusion.text import Text


@runtime_checkable
class Predictor(Protocol):
    """The part of a DiffusionModel (models/interface.py) that sampling needs."""

    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def schedule(self) -> Schedule: ...

    def predict(
        self,
        latents: Float[Tensor, "r c h w"],
        time: Time,
        text: Text,
        control: AttentionControl | None = None,
    ) -> Float[Tensor, "r c h w"]:
        """The network's output; what it means is the schedule's `target`."""
        ...


@dataclass(frozen=True)
class SampleStep:
    """One finished denoising step.

    index counts from 0 to total - 1; time is the one the network was told. latents (b, c, h, w)
    are those after the step, so the last step's latents are the result.
    """

    index: int
    total: int
    time: float
    latents: Float[Tensor, "b c h w"]


def times_of(model: Predictor, steps: int, latents: Float[Tensor, "b c h w"]) -> tuple[float, ...]:
    """The steps + 1 times of a run over latents of this height and width, from noise to clean."""
    height, width = latents.shape[-2:]
    return model.schedule.times(steps, int(height * width))


def advance(
    schedule: Schedule,
    latents: Float[Tensor, "b c h w"],
    output: Float[Tensor, "b c h w"],
    start: float,
    end: float,
    *,
    at: float | None = None,
    eta: float = 0.0,
    fresh: Float[Tensor, "b c h w"] | None = None,
) -> Float[Tensor, "b c h w"]:
    """Move latents from time `start` to time `end`, towards either end.

    Args:
        output: the network's, after guidance.
        at: the time the network was told; None = start. Inversions evaluate at `end`.
        eta, fresh: when denoising, standard normal noise that replaces a share of what is there:
            eta 0 is DDIM or Euler, eta 1 ancestral sampling.

    The arithmetic is done in float32 or finer, and the result has the latents' dtype.
    """
    # In half precision the rounding of 50 steps adds up to a visible difference.
    x, out = wide(latents), wide(output)
    if fresh is None or eta == 0:
        moved = schedule.moved(x, out, start, end, at=start if at is None else at)
        return moved.to(latents.dtype)
    # Song et al. 2020, eq. 12: the predicted noise keeps the variance that is left after sigma^2 of
    # fresh noise.
    clean, noise = schedule.denoised(x, out, start)
    sigma = eta * schedule.fresh_noise(start, end)
    # At eta = 1 and the last step the difference may round below zero.
    kept = sqrt(max(schedule.noise(end) ** 2 - sigma**2, 0.0))
    moved = schedule.signal(end) * clean + kept * noise + sigma * wide(fresh)
    return moved.to(latents.dtype)


def guided(
    uncond: Float[Tensor, "b c h w"], cond: Float[Tensor, "b c h w"], guidance: float
) -> Float[Tensor, "b c h w"]:
    """Classifier-free guidance on outputs: u + g * (c - u)."""
    # Not (1 - g) u + g c: this form gives c exactly where both outputs are equal, which negative-
    # prompt inversion relies on.
    return uncond + guidance * (cond - uncond)


def guided_output(
    model: Predictor,
    latents: Float[Tensor, "b c h w"],
    time: float,
    text: Text,
    uncond: Text | None,
    guidance: float | Scales,
    control: AttentionControl | None = None,
) -> Float[Tensor, "b c h w"]:
    """The guided output, from one model call: first b unconditional rows, then b conditional ones,
    then b perturbed ones (see `Scales`).

    With guidance 1 or without uncond there are no unconditional rows. A guidance-distilled model
    reads the scale instead. Perturbed rows take no other control; ValueError for one.
    """
    how, scales = guidance_of(model), scales_of(guidance)
    # Distilled models were trained with the scale as an input and have no unconditional branch.
    if how.kind == "embedded":
        text, uncond = text.guided(scales.guidance), None
    count, texts = len(latents), [text]
    if uncond is not None and scales.guidance != 1:
        texts.insert(0, uncond)
    places = len(texts)
    if scales.pag:
        if control is not None:
            raise ValueError("perturbed-attention guidance takes no other control.")
        texts.append(text)
        control = PerturbedRows(tuple(range(places * count, (places + 1) * count)), scales.layers)
    # One call of all rows is quicker than one for each part, and controls can pass attention
    # between the parts.
    if len(texts) == 1:
        return model.predict(latents, time, text, control)
    rows = torch.cat([latents] * len(texts))
    parts = model.predict(rows, time, Text.cat(texts), control).chunk(len(texts))
    return how.combined(
        parts[0] if places == 2 else None,
        parts[places - 1],
        scales,
        parts[places] if scales.pag else None,
    )


@dataclass(frozen=True)
class AncestralNoise:
    """Noise that a sampler adds in each step.

    eta: share of fresh noise, 0 is DDIM and 1 ancestral sampling (see `advance`). streams: one
    generator for each picture. temperature: factor on the noise; below 1 gives smoother pictures.
    """

    eta: float
    streams: Sequence[torch.Generator]
    temperature: float = 1.0


@torch.no_grad()
def sample_steps(
    model: Predictor,
    latents: Float[Tensor, "b c h w"],
    text: Text,
    uncond: Text | None = None,
    *,
    steps: int,
    guidance: float | Scales = 1.0,
    control_at: Callable[[int], AttentionControl | None] = lambda index: None,
    noise: AncestralNoise | None = None,
    first: int = 0,
) -> Iterator[SampleStep]:
    """Denoise latents from pure noise to clean, one SampleStep at a time.

    first: steps left out at the beginning; the latents are those of the time of step `first`.

    control_at(index) gives the attention control of step index, or None; its rows are those of
    `guided_output`. noise: fresh noise in every step but the last; None = deterministic (DDIM).
    """
    times = times_of(model, steps, latents)
    for index, (start, end) in enumerate(pairwise(times[first:]), start=first):
        control = control_at(index)
        output = guided_output(model, latents, start, text, uncond, guidance, control)
        if noise is None or noise.eta == 0 or index == steps - 1:
            # The last step ends in the clean picture: noise added there would stay visible.
            latents = advance(model.schedule, latents, output, start, end)
        else:
            fresh = noise.temperature * drawn(noise.streams, latents.shape[1:], like=model)
            eta = noise.eta
            latents = advance(model.schedule, latents, output, start, end, eta=eta, fresh=fresh)
        yield SampleStep(index - first, steps - first, start, latents)


@torch.no_grad()
def invert_steps(
    model: Predictor,
    latents: Float[Tensor, "b c h w"],
    text: Text,
    *,
    steps: int,
) -> Iterator[SampleStep]:
    """Walk a sampling run backwards, from clean latents to noise, without guidance.

    DDIM inversion (Song et al. 2020, section 4.3); on a flow schedule the reverse Euler step. Each
    step evaluates the network at the noisier of its two times, as the sampler does. A step between
    equal noise levels (t = 0 in Stable Diffusion's convention) changes nothing and costs nothing.
    Each step's latents are the next noisier ones.
    """
    times = times_of(model, steps, latents)
    for index, (start, end) in enumerate(pairwise(reversed(times))):
        if moves(model.schedule, start, end):
            # The output at the noisier time stands for the step in both directions: the
            # approximation of DDIM inversion (section 4.3).
            output = model.predict(latents, end, text)
            latents = advance(model.schedule, latents, output, start, end, at=end)
        yield SampleStep(index, steps, end, latents)


def noise_streams(seeds: Sequence[int]) -> list[torch.Generator]:
    """A source of noise for each picture, on the CPU, so that a batch's size changes nothing."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def drawn(
    streams: Sequence[torch.Generator], shape: Sequence[int], *, like: Predictor
) -> Float[Tensor, "b c h w"]:
    """The next standard normal latents of each stream; shape is (c, h, w).

    Drawn on the CPU in float32, so the same seed gives the same noise on any device, in any batch
    and at any precision. Returned on the model's device, float32 or the model's dtype where that is
    finer.
    """
    # One stream per picture: a picture does not depend on its neighbours in the batch.
    rows = [torch.randn(tuple(shape), generator=stream) for stream in streams]
    return sent(torch.stack(rows), like.device, torch.promote_types(like.dtype, torch.float32))


def starting_noise(
    seeds: Sequence[int], shape: tuple[int, int, int], *, like: Predictor
) -> Float[Tensor, "b c h w"]:
    """The first noise of each seed's stream: where its picture starts from."""
    return drawn(noise_streams(seeds), shape, like=like)
