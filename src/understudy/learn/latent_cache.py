"""Pictures encoded to latents once, and drawn from at every step.

A photo passes the autoencoder once for each of its variants (mirrored, cropped); mean and spread of
its latents are kept in float32, and each step draws from them. Encoding at every step, as common
scripts do, costs more than the U-Net's forward pass at Stable Diffusion's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from understudy.device_copies import sent
from understudy.models.interface import DiffusionModel

ENCODE_BATCH = 8
SMALLEST_CROP = 0.75  # of the picture's side


@dataclass(frozen=True)
class LatentCache:
    """Encoded pictures, to draw from as often as wanted without encoding again.

    mean, std: of each picture's latents, times the scaling factor. std None: no spread. owner: the
    subject, or class, that each picture shows, all the first where None. mask: what of each
    picture counts, 1 in full; None where all of all pictures does. weight: how often each picture
    is drawn, relative to the others; None: equally often. wording: which group of prompts each
    picture goes by; None: that of its owner.
    """

    mean: Float[Tensor, "n c h w"]
    std: Float[Tensor, "n c h w"] | None = None
    owner: Int[Tensor, " n"] | None = None
    mask: Float[Tensor, "n 1 h w"] | None = None
    weight: Float[Tensor, " n"] | None = None
    wording: Int[Tensor, " n"] | None = None

    def pick(self, count: int, generator: torch.Generator) -> Int[Tensor, " count"]:
        """`count` pictures chosen at random by their weights, with replacement."""
        # Near-duplicates share the weight of one photo (see `photo_groups`).
        if self.weight is not None:
            return self.weight.multinomial(count, replacement=True, generator=generator)
        return torch.randint(len(self.mean), (count,), generator=generator)

    def draw(
        self, which: Int[Tensor, " count"], generator: torch.Generator
    ) -> Float[Tensor, "count c h w"]:
        """Latents of the pictures `which`, each drawn from its mean and spread."""
        which = sent(which, self.mean.device)
        if self.std is None:
            return self.mean[which]
        # A new sample of the posterior each time, as if the photo had been encoded again.
        spread = torch.randn(len(which), *self.mean.shape[1:], generator=generator)
        return self.mean[which] + self.std[which] * sent(spread, self.mean.device, self.mean.dtype)

    def owners(self, which: Int[Tensor, " count"]) -> Int[Tensor, " count"]:
        """Whom the pictures `which` show."""
        return torch.zeros_like(which) if self.owner is None else self.owner[which]

    def wordings(self, which: Int[Tensor, " count"]) -> Int[Tensor, " count"]:
        """The groups of prompts that the pictures `which` go by."""
        return self.owners(which) if self.wording is None else self.wording[which]

    @property
    def total(self) -> float:
        """The weights of all pictures together."""
        return float(len(self.mean) if self.weight is None else self.weight.sum())

    @property
    def size(self) -> tuple[int, int, int]:
        """(c, h, w) of one picture's latents."""
        c, h, w = self.mean.shape[1:]
        return c, h, w


def joined(caches: Sequence[LatentCache]) -> LatentCache:
    """One cache of the pictures of several; cache number k shows owner k unless it names owners."""
    if len(caches) == 1 and caches[0].owner is not None:
        return caches[0]
    mean = torch.cat([cache.mean for cache in caches])
    owners = [
        torch.full((len(cache.mean),), k) if cache.owner is None else cache.owner
        for k, cache in enumerate(caches)
    ]
    found = LatentCache(mean, owner=torch.cat(owners))
    if any(cache.std is not None for cache in caches):
        whole = [torch.zeros_like(c.mean) if c.std is None else c.std for c in caches]
        found = replace(found, std=torch.cat(whole))
    if any(cache.mask is not None for cache in caches):
        full = [torch.ones_like(c.mean[:, :1]) if c.mask is None else c.mask for c in caches]
        found = replace(found, mask=torch.cat(full))
    if any(cache.weight is not None for cache in caches):
        even = [torch.ones(len(c.mean)) if c.weight is None else c.weight for c in caches]
        found = replace(found, weight=torch.cat(even))
    if any(cache.wording is not None for cache in caches):
        said = [
            own if c.wording is None else c.wording for c, own in zip(caches, owners, strict=True)
        ]
        found = replace(found, wording=torch.cat(said))
    return found


@torch.no_grad()
def encode_photos(
    model: DiffusionModel,
    photos: Float[Tensor, "n 3 h w"],
    *,
    flip: bool = False,
    crops: int = 0,
    masks: Float[Tensor, "n 1 h w"] | None = None,
    outside: float = 0.0,
    seed: int = 0,
) -> LatentCache:
    """The photos' latents; with `crops` those of as many random crops of each; with `flip` those
    of the mirror images of all these besides.

    masks: 1 where the subject is; `outside` is what the rest counts. Crops are of 3/4 of the
    side and more, scaled back to the full size.
    """
    pictures, cut = [photos], [masks]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(crops):
        boxes = _boxes(len(photos), photos.shape[-2:], generator)
        pictures.append(_cropped(photos, boxes))
        cut.append(None if masks is None else _cropped(masks, boxes))
    # Pictures are mirrored before encoding: mirrored latents decode to other pictures.
    every = torch.cat(pictures + [x.flip(-1) for x in pictures if flip])
    batches = [model.posterior(batch.to(model.device)) for batch in every.split(ENCODE_BATCH)]
    wide = torch.promote_types(model.dtype, torch.float32)
    mean, std = (torch.cat(parts).to(wide) for parts in zip(*batches, strict=True))
    if masks is None:
        return LatentCache(mean, std)
    # Masks go the same way as their photos: cropped and mirrored alike.
    kept = [mask for mask in cut if mask is not None]
    small = F.interpolate(
        torch.cat(kept + [x.flip(-1) for x in kept if flip]), mean.shape[-2:], mode="area"
    )
    return LatentCache(mean, std, None, (small + outside * (1 - small)).to(mean))


Box = tuple[int, int, int, int]  # top, left, height, width


def _boxes(count: int, size: tuple[int, ...], generator: torch.Generator) -> list[Box]:
    height, width = size
    boxes: list[Box] = []
    for scale, down, right in torch.rand(count, 3, generator=generator).tolist():
        share = SMALLEST_CROP + (1 - SMALLEST_CROP) * scale
        h, w = round(height * share), round(width * share)
        boxes.append((round(down * (height - h)), round(right * (width - w)), h, w))
    return boxes


def _cropped(pictures: Float[Tensor, "n k h w"], boxes: Sequence[Box]) -> Float[Tensor, "n k h w"]:
    """Each picture's box, scaled to the size of the pictures."""
    size = pictures.shape[-2:]
    parts = [
        F.interpolate(one[None, :, y : y + h, x : x + w], size, mode="bilinear", antialias=True)
        for one, (y, x, h, w) in zip(pictures, boxes, strict=True)
    ]
    return torch.cat(parts).clamp(-1, 1)
