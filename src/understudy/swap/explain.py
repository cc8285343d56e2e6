"""Attention maps and masks of a photo: what Photoswap's settings act on.

Figures 3 and 4 of Gu et al. 2023 (arXiv:2305.18286): the leading components of self-attention maps
(SVD, as in prompt-to-prompt and plug-and-play), in single steps and averaged over steps; beside
them where each word of the prompt looks. The photo's own path is walked once; only here, and only
for layers of one size, are whole self-attention maps made.

In a joint layer one map holds both: columns of pixels are its self-attention, columns of words its
cross-attention. Knows models through their protocol; draws nothing: `ExplainStep`s are numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.attention.plan import AttentionPlan, Recording
from understudy.attention.site import AttentionSite
from understudy.diffusion.prompt_weights import unweighted
from understudy.diffusion.prompt_words import words_of
from understudy.diffusion.sampler import advance, guided
from understudy.diffusion.words import word_places
from understudy.errors import InputError
from understudy.invert.inversion import Inversion
from understudy.invert.source import Grid, best_grid
from understudy.models.interface import DiffusionModel
from understudy.transfer.joint import word_blocks
from understudy.transfer.readings import readings

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
    time: float
    latents: Float[Tensor, "1 c h w"]
    attention: Attention
    average: Attention


@torch.no_grad()
def explain_steps(
    model: DiffusionModel, inversion: Inversion, *, guidance: float
) -> Iterator[ExplainStep]:
    """Walk an inverted photo back, one step at a time, and watch its attention.

    Where the path is known the conditional row alone is run; else it is sampled with guidance.
    Raises InputError for a prompt without words, and for a flow model whose pictures have more than
    FINEST image tokens.
    """
    inversion.check(model)
    text, empty = model.embed([inversion.prompt]), model.embed([""])
    tokens = readings(model, inversion.prompt)
    said = words_of(unweighted(inversion.prompt))
    words = {word: word_places(inversion.prompt, word, tokens) for word in said}
    if not words:
        raise InputError("the prompt has no words to explain.")
    blocks = word_blocks(model)
    path, latents, whole = inversion.path, inversion.noise, _Sums(words, blocks)
    for index, (start, end) in enumerate(pairwise(inversion.times)):
        seen = _Sums(words, blocks, whole.grid, whole.word_grid)
        output = model.predict(latents, start, text, _Watch(seen))
        if path is not None:
            latents = path[index + 1 : index + 2]
        else:
            null = inversion.uncond(index)
            null = empty if null is None else null.to(text)
            uncond = output if guidance == 1 else model.predict(latents, start, null)
            output = guided(uncond, output, guidance)
            latents = advance(model.schedule, latents, output, start, end)
        seen.settle()
        whole.take(seen)
        yield ExplainStep(
            index, inversion.steps, start, latents, seen.attention(), whole.attention()
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
    """Self- and cross-attention maps summed over the layers of one size each.

    blocks: of joint layers, those whose columns of words are read; None = all.
    """

    words: dict[str, tuple[int, ...]]
    blocks: frozenset[int] | None = None
    grid: Grid | None = None
    word_grid: Grid | None = None
    maps: dict[Grid, Tensor] = field(default_factory=dict[Grid, Tensor])
    crossed: dict[Grid, Tensor] = field(default_factory=dict[Grid, Tensor])

    def wants(self, site: AttentionSite) -> bool:
        """The first step looks at every size that may be it; later ones only at the chosen."""
        chosen = self.word_grid if site.crosses else self.grid
        return site.cells <= FINEST if chosen is None else site.grid == chosen

    def add(self, site: AttentionSite, maps: Float[Tensor, "1 heads q k"]) -> None:
        """One layer's whole maps."""
        mean = maps[0].float().mean(0)
        if site.kind != "joint":
            self._add(self.crossed if site.crosses else self.maps, site.grid, mean)
            return
        self._add(self.maps, site.grid, mean[:, site.image])
        reads = site.block == "double" and site.block_index in (self.blocks or ())
        if self.blocks is None or reads:
            self._add(self.crossed, site.grid, mean[:, site.text])

    def _add(self, into: dict[Grid, Tensor], grid: Grid, mean: Tensor) -> None:
        into[grid] = into[grid] + mean if grid in into else mean

    def settle(self) -> None:
        """Keep the finest self-attention and the cross-attention nearest to 16 x 16."""
        if not self.maps:
            raise InputError(
                f"explain supports attention layers of at most {FINEST} image tokens, and all "
                "layers of this model have more at this picture's size. Use a smaller picture."
            )
        self.grid = self.grid or max(self.maps, key=prod)
        self.word_grid = self.word_grid or best_grid(self.crossed)
        self.maps = {self.grid: self.maps[self.grid]}
        self.crossed = {self.word_grid: self.crossed[self.word_grid]}

    def take(self, other: _Sums) -> None:
        """Add another step's sums."""
        self.grid, self.word_grid = other.grid, other.word_grid
        for into, new in ((self.maps, other.maps), (self.crossed, other.crossed)):
            for grid, sums in new.items():
                into[grid] = into[grid] + sums if grid in into else sums

    def attention(self) -> Attention:
        assert self.grid is not None and self.word_grid is not None, "settle() comes first"
        whole, crossed = self.maps[self.grid], self.crossed[self.word_grid]
        seen: dict[str, Tensor] = {}
        for word, places in self.words.items():
            heat = crossed[:, list(places)].sum(1)
            seen[word] = (heat / heat.amax().clamp(min=1e-12)).unflatten(0, self.word_grid).cpu()
        normal = whole / whole.sum(1, keepdim=True)
        return Attention(normal.cpu(), self.grid, seen, self.word_grid)


@dataclass(frozen=True)
class _Watch:
    """Plain attention of one row, watched."""

    sums: _Sums

    def plan(self, site: AttentionSite) -> AttentionPlan | None:
        if not self.sums.wants(site):
            return None
        return AttentionPlan(record=Recording((0,), None, self.sums.add))
