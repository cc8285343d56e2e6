"""The photos of all subjects as latents, by size, each with the prompts it goes by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from understudy.learn.latent_cache import LatentCache, encode_photos, joined
from understudy.learn.photo_masks import found_masks
from understudy.learn.subject import NamedSubject, PhotoGroup
from understudy.models.interface import DiffusionModel
from understudy.settings import LearnSettings


@dataclass(frozen=True)
class EncodedPhotos:
    """sizes: the photos of each size, those with the largest weight first. wordings: the groups of
    prompts; a photo with a caption has a group of its own."""

    sizes: tuple[LatentCache, ...]
    wordings: tuple[tuple[str, ...], ...]

    @property
    def total(self) -> float:
        """The weights of all photos together."""
        return sum(cache.total for cache in self.sizes)


def encoded_photos(
    model: DiffusionModel, learned: Sequence[NamedSubject], settings: LearnSettings
) -> EncodedPhotos:
    """Encode the photos of all subjects, once."""
    captions = dict.fromkeys((k, text) for k, one in enumerate(learned) for text in one.captioned)
    places = {pair: len(learned) + number for number, pair in enumerate(captions)}
    by_size: dict[tuple[int, int], list[LatentCache]] = {}
    for owner, named in enumerate(learned):
        # Mirrored writing would be learnt as part of the subject.
        flip = settings.flip and not named.subject.has_writing
        for group in named.subject.all_groups:
            masks = group.masks
            if masks is None and settings.find_masks:
                noun = named.subject.class_noun
                masks = found_masks(model, group.photos, named.class_prompt, noun)
            cache = encode_photos(
                model,
                group.photos,
                flip=flip,
                crops=settings.crops,
                masks=masks,
                outside=settings.mask_weight,
                seed=settings.seed,
            )
            cache = _with_words(cache, group, owner, places)
            by_size.setdefault(group.size, []).append(cache)
    # The most frequent size first: validation losses are measured on it.
    sizes = sorted((joined(some) for some in by_size.values()), key=lambda cache: -cache.total)
    said = [learned[owner].captioned[text] for owner, text in captions]
    return EncodedPhotos(
        tuple(sizes), (*(n.wordings for n in learned), *((text,) for text in said))
    )


def _with_words(
    cache: LatentCache, group: PhotoGroup, owner: int, places: dict[tuple[int, str], int]
) -> LatentCache:
    """The cache with owners, weights and groups of prompts; variants of a photo (crops, mirror
    images) follow each other in the order of the photos."""
    # Crops and mirror images take the caption and the weight of their photo.
    variants = len(cache.mean) // len(group.photos)
    found = replace(cache, owner=torch.full((len(cache.mean),), owner))
    if any(group.captions):
        groups = [places.get((owner, text), owner) for text in group.captions]
        found = replace(found, wording=torch.tensor(groups).repeat(variants))
    if len(set(group.weights)) > 1 or group.weights and group.weights[0] != 1:
        found = replace(found, weight=torch.tensor(group.weights).repeat(variants))
    return found
