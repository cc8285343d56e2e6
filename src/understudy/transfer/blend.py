"""Where the target may differ from the source: masks from word attention, or given masks.

LocalBlend of prompt-to-prompt (Hertz et al. 2022, arXiv:2208.01626, section 3) as Photoswap's
authors use it: cross-attention to the subject's words, summed over the steps so far, makes a mask
of source and target subject; outside it the latent is the source's. Knows maps, places and masks;
knows nothing of models or prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.attention.site import AttentionSite
from understudy.errors import InputError
from understudy.invert.source import Grid, best_grid


@dataclass(frozen=True)
class Blend:
    """Where and from when the target may differ from the source.

    Attributes:
        start: the first step index (from 0) after which latents are blended.
        source_places: places of the source subject's words; empty for none.
        target_places: for each target, the places of its subject's words.
        threshold: share of the strongest attention above which a cell belongs to the subject.
        mask: "targets-or-1 1 h w" of the latents' size, 1 = may change; None = anywhere. With
            words too, a cell changes where both allow it.
        kept_places: places of words whose cells stay the source's after all, of the source and
            of each target; () for none.
        kept_threshold: the same share for these words.
        clean: the photo's latents. Outside the mask a step that adds fresh noise takes them with
            as much noise as is left (Avrahami et al. 2023, arXiv:2206.02779), which is what the
            network was trained on; None = the source's own latents.
        keys: whether attention, too, reads the source outside the mask: its keys and values
            (KV-Edit), in all steps that begin with blended latents.
    """

    start: int
    source_places: tuple[int, ...] = ()
    target_places: tuple[tuple[int, ...], ...] = ()
    threshold: float = 0.3
    mask: Float[Tensor, "k 1 h w"] | None = None
    kept_places: tuple[tuple[int, ...], ...] = ()
    kept_threshold: float = 0.3
    clean: Float[Tensor, "1 c h w"] | None = None
    keys: bool = False

    @property
    def by_words(self) -> bool:
        """Whether attention to words says where the target may differ."""
        return bool(self.source_places) or any(self.target_places)

    @property
    def first_mask(self) -> Float[Tensor, "m 1 h w"] | None:
        """What may change in the first step, where source and targets are one latent."""
        return None if self.start or self.by_words else self.mask

    def sums(self, size: tuple[int, int], blocks: frozenset[int] | None = None) -> MapSums | None:
        """Empty sums of the maps this blend reads, for latents of `size`; None if it reads none.

        blocks: of joint layers, those that show words well; None = all.
        """
        # A given mask alone reads no attention, so nothing is recorded for it.
        if not self.by_words:
            return None
        places = (self.source_places, *self.target_places)
        return MapSums(places, size, self.kept_places, blocks=blocks)

    def found(self, sums: MapSums, size: tuple[int, int]) -> Bool[Tensor, "targets h w"]:
        """Where the words are by now, those to be kept left out."""
        found = subject_mask(sums.sums, size, self.threshold)
        if not self.kept_places:
            return found
        return found & ~subject_mask(sums.kept_sums, size, self.kept_threshold, widen=False)

    def after(
        self, index: int, sums: MapSums | None, size: tuple[int, int]
    ) -> Float[Tensor, "m 1 h w"] | None:
        """The mask after step `index`, of each target or of all; None = everywhere.

        sums: of the maps this blend reads; None where it reads none.
        """
        if index < self.start:
            return None
        if sums is None:
            return self.mask
        found = self.found(sums, size)[:, None]
        return found.float() if self.mask is None else found * self.mask.to(found.device)


@dataclass
class MapSums:
    """Running sums of the cross-attention to some words, one row each: source, then targets.

    Layers of all sizes are summed until the first step has shown which sizes there are; from
    then on only those of the chosen one, nearest to 16 x 16, the middle block left out. kept:
    places of a second kind of words, with sums of their own; () for none. blocks: see `Blend.sums`.
    """

    places: tuple[tuple[int, ...], ...]
    size: tuple[int, int]
    kept: tuple[tuple[int, ...], ...] = ()
    grid: tuple[int, int] | None = None
    blocks: frozenset[int] | None = None
    _sums: dict[Grid, Float[Tensor, "rows q"]] = field(default_factory=dict[Grid, Tensor])
    _layers: dict[Grid, int] = field(default_factory=dict[Grid, int])

    def wants(self, site: AttentionSite) -> bool:
        """Whether this layer's maps are to be recorded."""
        # The middle block is too coarse to show outlines (8 x 8 cells at 512 pixels), and the
        # authors leave it out as well.
        if not site.crosses or site.block == "mid":
            return False
        if self.blocks is not None and site.kind == "joint":
            return site.block == "double" and site.block_index in self.blocks
        return self.grid is None or site.grid in self._sums

    def add(
        self,
        site: AttentionSite,
        maps: Float[Tensor, "some heads q columns"],
        columns: Sequence[int],
        rows: Sequence[int],
    ) -> None:
        """Add one layer's maps; columns: their key places; rows: which sums they belong to."""
        kinds = (*self.places, *self.kept)
        sums = self._sums.setdefault(
            site.grid, maps.new_zeros(len(kinds), site.cells, dtype=_precise(maps))
        )
        for row, row_maps in zip(rows, maps.to(sums.dtype).mean(1), strict=True):
            # Row r of the second kind of words follows the rows of the first: indices r and r + n.
            for kind in range(row, len(kinds), len(self.places)):
                # Stacked, as a list of indices would be copied to the device.
                wanted = [row_maps[:, columns.index(place)] for place in kinds[kind]]
                if wanted:
                    sums[kind] += torch.stack(wanted, dim=-1).sum(-1)
        if self.grid is None:
            self._layers[site.grid] = self._layers.get(site.grid, 0) + 1

    def close_step(self) -> None:
        """After the first step: keep the size that shows objects best, drop the others."""
        if self.grid is None and self._sums:
            # Which grids a model has is known only after its first call. Sums of the other grids
            # are dropped to free their memory.
            best = best_grid(self._sums)
            self._sums = {best: self._sums[best]}
            self.grid = best

    @property
    def columns(self) -> tuple[int, ...]:
        """All places that are read, in order."""
        return tuple(sorted({place for places in (*self.places, *self.kept) for place in places}))

    @property
    def sums(self) -> Float[Tensor, "rows gh gw"]:
        """Attention to the words, averaged over layers and heads, summed over the steps."""
        return self._averaged()[: len(self.places)]

    @property
    def kept_sums(self) -> Float[Tensor, "rows gh gw"]:
        """The same of the second kind of words."""
        return self._averaged()[len(self.places) :]

    def _averaged(self) -> Float[Tensor, "kinds gh gw"]:
        assert self.grid is not None, "close_step() comes first"
        return (self._sums[self.grid] / self._layers[self.grid]).unflatten(-1, self.grid)


def word_mask(
    sums: Float[Tensor, "rows gh gw"],
    size: tuple[int, int],
    threshold: float,
    *,
    widen: bool = True,
) -> Bool[Tensor, "rows h w"]:
    """Cells whose attention is above `threshold` times their row's strongest.

    Attention is widened by one cell, brought to `size` by nearest neighbour, then compared. A row
    without any attention (a word that is not there) has an empty mask.
    """
    maps = sums[:, None]
    # Widening by one cell makes up for attention that covers the inside of an object more than its
    # rim (max-pooling in the authors' LocalBlend).
    if widen:
        maps = F.max_pool2d(maps, 3, stride=1, padding=1)
    # Nearest neighbour, as published: the threshold then compares values that attention really had.
    maps = F.interpolate(maps, size=size)[:, 0]
    strongest = maps.amax((1, 2), keepdim=True)
    # Relative to the strongest cell, because absolute attention falls with the number of words.
    return (maps / strongest > threshold) & (strongest > 0)


def subject_mask(
    sums: Float[Tensor, "rows gh gw"],
    size: tuple[int, int],
    threshold: float,
    *,
    widen: bool = True,
) -> Bool[Tensor, "targets h w"]:
    """Where source or target subject is; row 0 of sums is the source, the rest are targets."""
    # Union of both: the old subject must be free to vanish, and the new one to appear.
    masks = word_mask(sums, size, threshold, widen=widen)
    return masks[:1] | masks[1:]


def latent_mask(
    mask: Float[Tensor, "b 1 h w"], size: tuple[int, int]
) -> Float[Tensor, "b 1 lh lw"]:
    """A picture's mask (1 = may change) at the latents' size: the share of each cell it covers."""
    height, width = mask.shape[-2:]
    if height < size[0] or width < size[1]:
        raise InputError(
            f"a mask must be at least as large as the latents, {size[1]} x {size[0]}. "
            f"Got {width} x {height}. Use a larger mask."
        )
    # A cell that the mask covers in part may change in part, which avoids a hard seam of 8 pixels.
    return F.adaptive_avg_pool2d(mask.float().clamp(0, 1), size)


def blended(
    source: Float[Tensor, "1 c h w"],
    target: Float[Tensor, "k c h w"],
    mask: Float[Tensor, "m 1 h w"],
) -> Float[Tensor, "k c h w"]:
    """The target inside the mask, the source outside."""
    # Written as a difference, so that a mask of 0 gives the source exactly, bit for bit.
    return source + mask.to(target) * (target - source)


def _precise(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
