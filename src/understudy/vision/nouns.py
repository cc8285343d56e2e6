"""Proposes the class noun of a subject by zero-shot classification of its photos.

DreamBooth lets a classifier give the class noun (Ruiz et al. 2023, section 3.2); CLIP (Radford et
al. 2021, section 3.1) is one for any list of words: the photo is compared with "a photo of a NOUN".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.errors import InputError

SCALE = 100.0  # what CLIP multiplies cosines by before the softmax
TEMPLATE = "a photo of a {}"
# The classes of DreamBench, of the toy world, and what else people and houses hold.
NOUNS = tuple(
    "backpack, bag, ball, basket, bear, bed, bicycle, bird, boat, book, boot, bottle, bowl, boy, "
    "bus, cake, camera, can, candle, car, cartoon, castle, cat, chair, clock, coat, cow, cup, "
    "dinosaur, dog, doll, dress, duck, elephant, figurine, fish, flower, fox, frog, girl, "
    "glasses, goat, guitar, hamster, hat, horse, house, jacket, jug, kettle, lamp, lion, man, "
    "monkey, motorbike, mouse, mug, owl, panda, parrot, pen, penguin, person, phone, pig, pillow, "
    "plant, plate, rabbit, ring, robot, rocket, sandal, sculpture, sheep, shirt, shoe, sloth, "
    "sneaker, sofa, squirrel, stuffed animal, sunglasses, table, teapot, teddy bear, tiger, toy, "
    "train, tree, truck, turtle, umbrella, vase, watch, woman".split(", ")
)


@runtime_checkable
class ImageTextFeatures(Protocol):
    """Pictures and texts to unit vectors of one space, such as `ClipFeatures`."""

    def of(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]: ...
    def texts(self, prompts: Sequence[str]) -> Float[Tensor, "n d"]: ...


def propose_noun(
    features: ImageTextFeatures,
    photos: Sequence[Float[Tensor, "1 3 _ _"]],
    nouns: Sequence[str] = NOUNS,
    *,
    most: int = 3,
) -> list[tuple[str, float]]:
    """The nouns that fit the photos best, with their shares of belief (all nouns sum to 1).

    photos may differ in size; their mean vector counts. Raises InputError without photos or nouns.
    """
    if not photos or not nouns:
        raise InputError(f"Expected photos and nouns. Got {len(photos)} and {len(nouns)}.")
    seen = torch.cat([features.of(photo) for photo in photos]).mean(0, keepdim=True)
    seen = torch.nn.functional.normalize(seen, dim=1)
    likeness = seen @ features.texts([TEMPLATE.format(noun) for noun in nouns]).T
    shares, order = (SCALE * likeness[0]).softmax(0).sort(descending=True)
    found = zip(order.tolist(), shares.tolist(), strict=True)
    named = [(str(nouns[place]), float(share)) for place, share in found]
    return named[:most]
