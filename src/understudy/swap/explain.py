"""Attention maps and masks of a photo: what Photoswap's settings act on.

Figures 3 and 4 of Gu et al. 2023 (arXiv:2305.18286): the leading components of self-attention maps
(SVD, as in prompt-to-prompt and plug-and-play), in single steps and averaged over steps; beside
them where each word of the prompt looks. The photo's own path is walked once; only here, and only
for layers of one size, are whole self-attention maps made.

Knows models through their protocol; draws nothing: `ExplainStep`s are numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import log

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.attention.plan import AttentionPlan, AttentionSite, Recording
from understudy.diffusion.prompt_words import words_of
from understudy.diffusion.sampler import ddim_step, guided, next_lower
from understudy.diffusion.words import word_places
from understudy.errors import InputError
from understudy.invert.inversion import Inversion
from understudy.models.interface import DiffusionModel
from understudy.transfer.blend import grid_of

FINEST = 1024  # cells of the self-attention maps that are made: 32 x 32, as in the figures


@dataclass(frozen=True)
class Attention:
    """Attention of one conditional row, averaged over layers, heads and steps.

    self_map: which cell (rows) looks at which (columns), over a grid of height and width `size`;
    words: where each word of the prompt is seen, over the grid `word_size`, each at most 1.
    """

    self_map: Float[Tensor, "cells cells"]
    size: tuple[int, int]
    words: dict[str, Float[Tensor, "gh gw"]]
    word_size: tuple[int, int]


@dataclass(frozen=True)
class ExplainStep:
    """One finished step: its own attention, and the average of all steps so far."""

    index: int
    total: int
    timestep: int
    latents: Float[Tensor, "1 c h w"]
    attention: Attention
    average: Attention


@torch.no_grad()
def explain_steps(
    model: DiffusionModel, inversion: Inversion, *, guidance: float
) -> Iterator[ExplainStep]:
    """Walk an inverted photo back, one step at a time, and watch its attention.

    Where the path is known the conditional row alone is run; else it is sampled with guidance.
    """
    inversion.check(model)
    text, empty = model.embed([inversion.prompt]), model.embed([""])
    pieces = model.tokenize(inversion.prompt).pieces
    words = {w: word_places(inversion.prompt, w, pieces) for w in words_of(inversion.prompt)}
    if not words:
        raise InputError("there is nothing to explain in a prompt without words.")
    size = (int(inversion.noise.shape[-2]), int(inversion.noise.shape[-1]))
    path, latents, whole = inversion.path, inversion.noise, _Sums(size, words)
    for index, timestep in enumerate(inversion.timesteps):
        seen = _Sums(size, words, whole.cells, whole.word_cells)
        end = next_lower(model.schedule, inversion.steps, timestep)
        noise = model.predict_noise(latents, timestep, text, _Watch(seen))
        if path is not None:
            latents = path[index + 1 : index + 2]
        else:
            null = inversion.uncond(index)
            null = empty if null is None else null.to(text)
            uncond = noise if guidance == 1 else model.predict_noise(latents, timestep, null)
            latents = ddim_step(
                model.schedule, latents, guided(uncond, noise, guidance), timestep, end
            )
        seen.settle()
        whole.take(seen)
        yield ExplainStep(
            index, inversion.steps, timestep, latents, seen.attention(), whole.attention()
        )


def components(
    self_map: Float[Tensor, "cells cells"], size: tuple[int, int], count: int = 3
) -> Float[Tensor, "count gh gw"]:
    """The leading left singular vectors of a self-attention map, as pictures from 0 to 1.

    A vector's sign means nothing: each is turned so that its larger entries are positive.
    """
    u, _, _ = torch.linalg.svd(self_map.double() - self_map.double().mean(0), full_matrices=False)
    kept = u[:, :count].T
    signs = kept.gather(1, kept.abs().argmax(1, keepdim=True)).sign()
    kept = kept * signs
    low, high = kept.amin(1, keepdim=True), kept.amax(1, keepdim=True)
    return ((kept - low) / (high - low).clamp(min=1e-12)).unflatten(1, size).float()


@dataclass
class _Sums:
    """Self- and cross-attention maps summed over the layers of one size each."""

    size: tuple[int, int]
    words: dict[str, tuple[int, ...]]
    cells: int = 0
    word_cells: int = 0
    maps: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    crossed: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    def wants(self, site: AttentionSite) -> bool:
        """The first step looks at every size that may be it; later ones only at the chosen."""
        chosen = self.word_cells if site.is_cross else self.cells
        return site.tokens == chosen if chosen else site.tokens <= FINEST

    def add(self, site: AttentionSite, maps: Float[Tensor, "1 heads q k"]) -> None:
        into = self.crossed if site.is_cross else self.maps
        mean = maps[0].float().mean(0)
        into[site.tokens] = into[site.tokens] + mean if site.tokens in into else mean

    def settle(self) -> None:
        """Keep the finest self-attention and the cross-attention nearest to 16 x 16."""
        self.cells = self.cells or max(self.maps)
        nearest = min(self.crossed, key=lambda tokens: abs(log(tokens / 256)))
        self.word_cells = self.word_cells or nearest
        self.maps = {self.cells: self.maps[self.cells]}
        self.crossed = {self.word_cells: self.crossed[self.word_cells]}

    def take(self, other: _Sums) -> None:
        """Add another step's sums."""
        self.cells, self.word_cells = other.cells, other.word_cells
        for into, new in ((self.maps, other.maps), (self.crossed, other.crossed)):
            for tokens, sums in new.items():
                into[tokens] = into[tokens] + sums if tokens in into else sums

    def attention(self) -> Attention:
        whole = self.maps[self.cells]
        grid = grid_of(self.word_cells, self.size)
        crossed = self.crossed[self.word_cells]
        seen: dict[str, Tensor] = {}
        for word, places in self.words.items():
            heat = crossed[:, list(places)].sum(1)
            seen[word] = (heat / heat.amax().clamp(min=1e-12)).unflatten(0, grid).cpu()
        normal = whole / whole.sum(1, keepdim=True)
        return Attention(normal.cpu(), grid_of(self.cells, self.size), seen, grid)


@dataclass(frozen=True)
class _Watch:
    """Plain attention of one row, watched."""

    sums: _Sums

    def plan(self, site: AttentionSite) -> AttentionPlan | None:
        if not self.sums.wants(site):
            return None
        return AttentionPlan(record=Recording((0,), None, self.sums.add))
