"""Class nouns: the nearest text wins, over all photos."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from understudy.errors import InputError
from understudy.vision.nouns import NOUNS, SCALE, ImageTextFeatures, propose_noun

DIRECTIONS = {"cat": (1.0, 0.0, 0.1), "dog": (0.0, 1.0, 0.1), "mug": (0.1, 0.1, 1.0)}


class Painted:
    """Sees the mean colour; a cat is red, a dog green, a mug blue."""

    def of(self, pictures: Tensor) -> Tensor:
        return F.normalize(pictures.mean((2, 3)), dim=1)

    def texts(self, prompts: Sequence[str]) -> Tensor:
        rows = [DIRECTIONS[prompt.removeprefix("a photo of a ")] for prompt in prompts]
        return F.normalize(torch.tensor(rows), dim=1)


def photo(*colour: float, size: int = 8) -> Tensor:
    return torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, size, size + 2)


def test_the_nearest_noun_comes_first_and_shares_are_the_softmax() -> None:
    assert isinstance(Painted(), ImageTextFeatures)
    photos = [photo(0.1, 0.9, 0.1), photo(0.3, 0.8, 0.0, size=12)]
    found = propose_noun(Painted(), photos, list(DIRECTIONS))
    assert [noun for noun, _ in found] == ["dog", "cat", "mug"]
    seen = F.normalize(torch.cat([Painted().of(one) for one in photos]).mean(0), dim=0)
    texts = Painted().texts([f"a photo of a {noun}" for noun in DIRECTIONS])
    shares = (SCALE * texts @ seen).softmax(0)
    assert sum(share for _, share in found) == pytest.approx(1)
    assert found[0][1] == pytest.approx(float(shares[1]))


def test_one_odd_photo_does_not_decide() -> None:
    photos = [photo(1, 0, 0), photo(0.9, 0.2, 0), photo(0, 0, 1)]
    assert propose_noun(Painted(), photos, list(DIRECTIONS), most=1)[0][0] == "cat"


def test_nothing_to_look_at_is_refused() -> None:
    with pytest.raises(InputError, match="Got 0 and 3"):
        propose_noun(Painted(), [], list(DIRECTIONS))


def test_the_nouns_are_words_without_repetition() -> None:
    assert len(set(NOUNS)) == len(NOUNS) > 90
    assert {"backpack", "stuffed animal", "cat", "dog", "rocket"} <= set(NOUNS)
