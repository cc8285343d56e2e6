"""The new subject's looks, taken from pictures of it while its pose is the old one's.

Cross-image attention (Alaluf et al. 2023, arXiv:2311.03335): pictures of the subject are noised to
the step's time and run in the same call. In self-attention the tokens of the place where the
subject stands read the subject's tokens in those pictures: an ear takes the colours of an ear.
Only the layers of the finest grid do so; coarser ones hold the layout. Knows latents, masks and
texts; knows nothing of files or concepts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.attention.site import AttentionSite
from understudy.attention.tokens import TokensOf
from understudy.diffusion.sampler import starting_noise
from understudy.diffusion.text import Text
from understudy.models.interface import DiffusionModel
from understudy.transfer.batch_layout import BatchLayout

MOST = 4  # pictures that are read: each costs a network evaluation a step
COVERED = 0.3  # share of a token's cell that is the subject's, from which on the token is
SHOWN = 0.5  # the same in the pictures: of tokens at its edge, half the colours are another's


@dataclass(frozen=True, eq=False)
class Appearance:
    """Pictures of a subject. latents "n c h w", masks "n 1 h w" of it (1 = the subject), and the
    prompt that describes each."""

    latents: Float[Tensor, "n c h w"]
    masks: Float[Tensor, "n 1 h2 w2"]
    prompt: str


@dataclass(eq=False)
class AppearanceRows:
    """The rows of an appearance in a run, and who reads them.

    where: mask "1 1 h w" of the place whose tokens read. steps: those in which they do. seed: of
    the noise of the pictures, the same in every step.
    """

    model: DiffusionModel
    shown: Appearance
    where: Float[Tensor, "1 1 h w"]
    steps: range
    seed: int = 0
    _tokens: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = field(
        default_factory=dict[tuple[int, int], "tuple[Tensor, Tensor, Tensor]"], init=False
    )

    def __post_init__(self) -> None:
        self.finest = 0  # cells of the finest grid met so far: a network begins with it
        self.count = len(self.shown.latents)
        shape = self.shown.latents.shape
        size = (int(shape[1]), int(shape[2]), int(shape[3]))
        self.noise = starting_noise([self.seed] * self.count, size, like=self.model)
        text = self.model.embed([self.shown.prompt])
        self.text = Text.cat([text] * self.count)

    def added(self, where: BatchLayout, index: int, time: float) -> BatchLayout:
        """The layout of step `index` with the pictures' rows behind all others."""
        if index not in self.steps:
            return where
        noised = self.model.schedule.noised(self.shown.latents, self.noise, time)
        moved = self.count if where.stored else 0  # stored rows are counted on after those here
        return replace(
            where,
            latents=torch.cat([where.latents, noised.to(where.latents)]),
            text=Text.cat([where.text, self.text]),
            source_cond=None if where.source_cond is None else where.source_cond + moved,
            source_uncond=None if where.source_uncond is None else where.source_uncond + moved,
        )

    def tokens(self, site: AttentionSite, where: BatchLayout, index: int) -> TokensOf | None:
        """What the targets' tokens read in a layer, both rows of guidance; None = their own."""
        self.finest = max(self.finest, site.cells)
        if index not in self.steps or site.kind != "self" or site.cells != self.finest:
            return None
        if site.grid not in self._tokens:
            self._tokens[site.grid] = self._indices(site.grid)
        inside, outside, seen = self._tokens[site.grid]
        if not len(inside) or not len(seen):
            return None
        rows = tuple(dict.fromkeys((*where.target_uncond, *where.target_cond)))
        of = tuple(range(where.rows - self.count, where.rows))
        return TokensOf(rows, inside, outside, of, seen)

    def _indices(self, grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens inside the place, outside it, and of the subject in the pictures."""
        inside = F.adaptive_avg_pool2d(self.where.float(), grid).flatten() > COVERED
        seen = F.adaptive_avg_pool2d(self.shown.masks.float(), grid).flatten() > SHOWN
        return inside.nonzero()[:, 0], (~inside).nonzero()[:, 0], seen.nonzero()[:, 0]
