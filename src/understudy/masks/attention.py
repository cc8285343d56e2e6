"""Where a diffusion model sees a word in a photo: its attention on the photo with noise added.

No inversion is needed: attention is read from single predictions at moderate noise. The word's
cross-attention is averaged over layers (Tang et al. 2022, arXiv:2210.04885) and passed on by
self-attention, which groups the cells of one thing (Nguyen et al. 2023, arXiv:2309.14303). A second
map says where the word helps to predict the noise, as a diffusion classifier does (Li et al. 2023,
arXiv:2303.16203): it tells a dog from the robot beside it, when attention looks at both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.attention.plan import AttentionPlan, Recording
from understudy.attention.site import AttentionSite
from understudy.diffusion.prompt_words import word_spans
from understudy.diffusion.text import Text
from understudy.diffusion.words import word_places
from understudy.models.interface import DiffusionModel
from understudy.pictures import region as regions
from understudy.pictures.photo import Pixels
from understudy.pictures.region import Region
from understudy.pictures.tensors import to_tensor

LEVELS = (0.3, 0.5)  # of the range of times: how noisy the photo is made
SEARCHED = 0.3  # the level at which tiles of a large photo are compared
FINEST = 1024  # cells of the self-attention maps that are read; larger ones take too much memory

Map = Float[Tensor, "_ _"]


@dataclass(frozen=True)
class Seen:
    """What a model sees in a picture, over the cells of its finest attention that was read.

    Attributes:
        heat: the word's cross-attention, from 0 (median) to 1 (98th percentile) and a little more.
        passed: the same passed on by self-attention once.
        gain: by how much the word lowers the squared error of the predicted noise, summed over the
            predictions; positive where the word fits.
        affinity: row i: how much cell i attends to each cell; rows sum to 1.
        worded: whether there was a word; without one heat, passed and gain say nothing.
    """

    heat: Map
    passed: Map
    gain: Map
    affinity: Float[Tensor, "cells cells"]
    worded: bool = True


@torch.no_grad()
def seen(
    model: DiffusionModel,
    picture: Float[Tensor, "1 3 h w"],
    prompt: str,
    places: Sequence[int],
    other: str,
    *,
    samples: int = 1,
    seed: int = 0,
) -> Seen:
    """Look at a picture of a model's size with a prompt.

    places: those of the word's tokens in the prompt. other: the prompt without the word. samples:
    noises at each level. Costs 2 * len(LEVELS) * samples rows.
    """
    latents = model.encode(picture.to(model.device))
    texts = Text.cat([model.embed([one]) for one in (prompt, other)])
    watch = _Watch(tuple(places))
    gain = torch.zeros(latents.shape[2:], device=latents.device)
    stream = torch.Generator().manual_seed(seed)
    for level in LEVELS:
        time = model.schedule.time_at(level)
        for _ in range(samples):
            noise = torch.randn(latents.shape, generator=stream).to(latents)
            noisy = model.schedule.noised(latents, noise, time).expand(2, -1, -1, -1)
            output = model.predict(noisy, time, texts, watch)
            _, found = model.schedule.denoised(noisy, output, time)
            errors = (found - noise).float().square().mean(1)
            gain += errors[1] - errors[0]
    return watch.seen(gain / samples)


@dataclass(frozen=True)
class Told:
    """What the model is told: the prompt, the places of the word, the prompt without it."""

    prompt: str
    places: tuple[int, ...]
    other: str

    @classmethod
    def of(cls, model: DiffusionModel, prompt: str, word: str) -> Told:
        """For a word of the prompt; "" for none. Raises PromptError for one that it lacks."""
        if not word:
            return cls(prompt, (), prompt)
        places = word_places(prompt, word, model.tokenize(prompt))
        other = prompt
        for start, end in reversed(word_spans(prompt, word)):
            other = other[:start] + other[end:]
        return cls(prompt, places, " ".join(other.split()))

    def seen(self, model: DiffusionModel, pixels: Pixels, region: Region, samples: int = 1) -> Seen:
        """What the model sees in a region of a photo, with so many noises at each level."""
        picture = to_tensor(regions.cut(pixels, region, model.picture_size))
        return seen(model, picture, self.prompt, self.places, self.other, samples=samples)

    def heat(self, model: DiffusionModel, pixels: Pixels, region: Region) -> Map:
        """The word's cross-attention in a region of a photo, passed on by self-attention once.

        Not scaled, so that regions can be compared. Costs one row.
        """
        picture = to_tensor(regions.cut(pixels, region, model.picture_size))
        return heat(model, picture, self.prompt, self.places)


@torch.no_grad()
def heat(
    model: DiffusionModel,
    picture: Float[Tensor, "1 3 h w"],
    prompt: str,
    places: Sequence[int],
    *,
    seed: int = 0,
) -> Map:
    """The mean attention to a word's tokens over the layers, passed on once."""
    latents = model.encode(picture.to(model.device))
    time, watch = model.schedule.time_at(SEARCHED), _Watch(tuple(places), absolute=True)
    stream = torch.Generator().manual_seed(seed)
    noise = torch.randn(latents.shape, generator=stream).to(latents)
    noisy = model.schedule.noised(latents, noise, time)
    model.predict(noisy, time, model.embed([prompt]), watch)
    return watch.heat()


def scaled(values: Map) -> Map:
    """0 at the median, 1 at the 98th percentile, at most 1.2."""
    low, high = values.quantile(0.5), values.quantile(0.98)
    return ((values - low) / (high - low).clamp(min=1e-12)).clamp(0, 1.2)


@dataclass
class _Watch:
    """An attention control that adds up the maps of row 0 and changes nothing.

    absolute: whether a layer's attention to the words is added as it is, not scaled to its range.
    """

    places: tuple[int, ...]
    absolute: bool = False
    crossed: dict[str, Map] = field(default_factory=dict[str, Tensor])
    within: dict[tuple[int, int], Tensor] = field(default_factory=dict[tuple[int, int], Tensor])

    def plan(self, site: AttentionSite) -> AttentionPlan | None:
        if site.kind != "cross" and site.cells > FINEST:
            return None
        return AttentionPlan(record=Recording((0,), None, self.receive))

    def receive(self, site: AttentionSite, maps: Float[Tensor, "1 heads q k"]) -> None:
        mean = maps[0].float().mean(0)
        if site.crosses and self.places:
            first = site.text.start if site.kind == "joint" else 0
            heat = mean[:, [first + place for place in self.places]].sum(1)
            heat = heat.unflatten(0, site.grid)
            heat = heat if self.absolute else scaled(heat)
            self.crossed[site.name] = self.crossed.get(site.name, torch.zeros_like(heat)) + heat
        if site.kind != "cross":
            cells = mean[:, site.image] if site.kind == "joint" else mean
            cells = cells / cells.sum(1, keepdim=True).clamp(min=1e-12)
            known = self.within.get(site.grid)
            self.within[site.grid] = cells if known is None else known + cells

    def _affinity(self) -> tuple[tuple[int, int], Tensor]:
        """The finest grid of self-attention, and how much each of its cells attends to each."""
        grid = max(self.within, key=lambda size: size[0] * size[1])
        affinity = self.within[grid]
        return grid, affinity / affinity.sum(1, keepdim=True)

    def heat(self) -> Map:
        """The mean attention to the words over the layers, passed on once; of one call."""
        grid, affinity = self._affinity()
        mean = torch.stack([_resized(one, grid) for one in self.crossed.values()]).mean(0)
        return (affinity @ mean.flatten()).unflatten(0, grid).cpu()

    def seen(self, gain: Map) -> Seen:
        """All that was watched, over the finest grid of self-attention."""
        grid, affinity = self._affinity()
        heat = affinity.new_zeros(grid)
        for one in self.crossed.values():
            heat = heat + scaled(_resized(one, grid))
        heat = scaled(heat) if self.crossed else heat
        passed = scaled((affinity @ heat.flatten()).unflatten(0, grid)) if self.crossed else heat
        gain = _resized(gain, grid)
        worded = bool(self.places)
        return Seen(heat.cpu(), passed.cpu(), gain.cpu(), affinity.cpu(), worded)


def _resized(values: Map, size: tuple[int, int]) -> Map:
    return F.interpolate(values[None, None], size, mode="bicubic", antialias=True)[0, 0]
