"""Scores of a generator of toy faces: FID features, and perceptual path length in W."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from understudy.generators.stylegan2.generator import StyleGAN2
from understudy.vision.perceptual import RecogniserFeatures
from understudy.vision.recogniser import Recogniser

BATCH = 32  # pictures at once: bounds memory, changes nothing


@torch.no_grad()
def trunk_features(
    recogniser: Recogniser, pictures: Iterable[Float[Tensor, "b 3 h w"]]
) -> Float[Tensor, "n d"]:
    """The network's deepest features, averaged over the picture: what FID compares here, as
    Inception's last pooling elsewhere."""
    found = list[Tensor]()
    for part in pictures:
        deepest = recogniser.network.levels(recogniser.prepare(part))[-1]
        found.append(deepest.mean(dim=(2, 3)).float().cpu())
    return torch.cat(found)


@torch.no_grad()
def drawn_pictures(
    generator: StyleGAN2, seeds: range, truncation: float = 1.0
) -> Iterable[Float[Tensor, "b 3 h w"]]:
    """Pictures of seeds, as the command line draws them, in [-1, 1], some at a time."""
    for start in range(seeds.start, seeds.stop, BATCH):
        some = range(start, min(start + BATCH, seeds.stop))
        z = torch.cat([generator.draw_z(seed) for seed in some])
        yield generator.pictures(generator.latents(z, truncation=truncation)).clamp(-1, 1)


@torch.no_grad()
def path_lengths(
    generator: StyleGAN2,
    perceptual: RecogniserFeatures,
    count: int,
    *,
    epsilon: float = 1e-2,
    seed: int = 0,
) -> Float[Tensor, " count"]:
    """Perceptual path lengths in W (Karras et al. 2019, arXiv:1812.04948, section 4.1).

    Distance of two pictures a step of `epsilon` apart on the way between two latents, over
    epsilon squared. A mean far above the median tells of places where a little step is a jump.
    """
    draws = np.random.RandomState(seed)
    found = list[Tensor]()
    for start in range(0, count, BATCH):
        some = min(BATCH, count - start)
        z = torch.from_numpy(draws.randn(2 * some, generator.config.z_dim))
        a, b = generator.latents(z).chunk(2)
        at = torch.from_numpy(draws.rand(some)).to(a)[:, None, None]
        here, there = a.lerp(b, at), a.lerp(b, at + epsilon)
        ours, theirs = (perceptual.features(generator.pictures(ws)) for ws in (here, there))
        found.append(perceptual.distance(ours, theirs).cpu() / epsilon**2)
    return torch.cat(found)
