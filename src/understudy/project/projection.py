"""Projection: optimises W or W+ to reconstruct a photo, with regularised noise maps.

Karras et al. 2020, arXiv:1912.04958, appendix D: Adam over the latent and all noise maps, a
learning rate that rises and falls, noise on the latent that fades, and a term that keeps the maps
free of structure. Random draws come from one seed in the published order. The optimised maps are
let go, as published: they exist so that the latent need not explain what noise does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from understudy.generators.stylegan2.generator import StyleGAN2
from understudy.project.optimiser import Descent
from understudy.settings.project import ProjectSettings
from understudy.vision.distance import Perceptual, shrunk

MEAN_SEED = 123  # of the latents that give mean and spread, as published
SMALLEST = 8  # pixels a side: the noise term looks at the maps down to here


@dataclass(frozen=True)
class ProjectionStep:
    """One step of projection.

    distance, noise_term: before the optimiser's step, unweighted; picture: what they were measured
    on; ws: after the step. state: call it before the next step for what is needed to continue from
    here.
    """

    index: int
    total: int
    distance: float
    noise_term: float
    loss: float
    learning_rate: float
    picture: Float[Tensor, "1 3 h w"]
    ws: Float[Tensor, "1 num_ws w_dim"]
    state: Callable[[], dict[str, Tensor]]


@torch.no_grad()
def projection_steps(
    generator: StyleGAN2,
    target: Float[Tensor, "1 3 h w"],
    perceptual: Perceptual,
    settings: ProjectSettings | None = None,
    *,
    start: Float[Tensor, "1 num_ws w_dim"] | None = None,
    rise: float = 0.05,
    fall: float = 0.25,
    latent_noise_until: float = 0.75,
    kept: Mapping[str, Tensor] | None = None,
) -> Iterator[ProjectionStep]:
    """Project `target`, a picture of the generator's size in [-1, 1], step by step.

    Args:
        start: the first latent; None = the mean of W.
        rise, fall: shares of the steps in which the learning rate goes up and comes down.
        latent_noise_until: share of the steps after which the noise on the latent is 0.
        kept: state of an earlier step of an equal call, to continue from there, bit for bit.
    """
    settings = settings or ProjectSettings()
    steps, learning_rate = settings.steps, settings.learning_rate
    layers = generator.num_ws if settings.space == "w+" else 1
    mean, spread = latent_statistics(generator, settings.samples)
    w = (mean if start is None else start[:, :layers]).repeat(1, layers if start is None else 1, 1)
    randomness = torch.Generator().manual_seed(settings.seed)
    maps = {
        name: torch.randn(buffer.shape, generator=randomness).to(buffer).requires_grad_()
        for name, buffer in generator.synthesis.named_buffers()
        if name.endswith("noise_const")
    }
    descent = Descent({"w": w.requires_grad_(), **maps}, learning_rate, randomness)
    if kept:
        descent.restore(kept)
    wanted = perceptual.features(shrunk(target))
    for index in range(descent.made, steps):
        t = index / steps
        spread_now = spread * settings.latent_noise * max(0.0, 1 - t / latent_noise_until) ** 2
        moved = descent.draw(w) * spread_now
        rate = scheduled_rate(t, learning_rate, rise, fall)
        with torch.enable_grad():
            ws = (w + moved).expand(-1, generator.num_ws, -1)
            picture = functional_call(generator.synthesis, maps, (ws,))
            distance = perceptual.distance(perceptual.features(shrunk(picture)), wanted).sum()
            term = noise_term(list(maps.values()), distance)
            loss = distance + settings.noise_weight * term
            descent.step(loss, rate)
        renormalise(maps.values())
        numbers = (distance.item(), term.item(), loss.item(), rate)
        ws = w.detach().expand(-1, generator.num_ws, -1).clone()
        yield ProjectionStep(index, steps, *numbers, picture.detach(), ws, descent.kept)


@torch.no_grad()
def latent_statistics(
    generator: StyleGAN2, samples: int
) -> tuple[Float[Tensor, "1 1 w_dim"], float]:
    """Mean of W, and the root of the mean squared distance from it."""
    drawn = np.random.RandomState(MEAN_SEED).randn(samples, generator.config.z_dim)
    w = generator.latents(torch.from_numpy(drawn))[:, :1]
    mean = w.mean(dim=0, keepdim=True)
    spread = ((w - mean).double().square().sum() / samples).sqrt()
    return mean, float(spread)


def scheduled_rate(t: float, peak: float, rise: float, fall: float) -> float:
    """The learning rate at the share t of all steps: linear up, half a cosine down."""
    ramp = 0.5 - 0.5 * math.cos(min(1.0, (1 - t) / fall) * math.pi)
    return peak * ramp * min(1.0, t / rise)


def noise_term(maps: list[Tensor], like: Tensor) -> Float[Tensor, ""]:
    """Squared mean products of every map, and of its halvings, with itself moved by one cell."""
    total = torch.zeros_like(like)
    for values in maps:
        level = values[None, None]
        while True:
            for axis in (3, 2):
                total = total + (level * level.roll(1, dims=axis)).mean().square()
            if level.shape[2] <= SMALLEST:
                break
            level = F.avg_pool2d(level, 2)
    return total


@torch.no_grad()
def renormalise(maps: Iterable[Tensor]) -> None:
    """Every map to mean 0 and root mean square 1."""
    for values in maps:
        values -= values.mean()
        values *= values.square().mean().rsqrt()
