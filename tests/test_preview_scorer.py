"""learn/preview_scorer.py: previews of the right toy score high, of another one low."""

from __future__ import annotations

import math

import pytest
import torch

from understudy import toybox
from understudy.learn.preview import PreviewPictures, PreviewScores
from understudy.learn.preview_scorer import FeaturePreviewScorer
from understudy.pictures.tensors import to_tensor
from understudy.vision.features import ToyFeatures
from understudy.vision.recogniser import load


def photos(seed: int, noun: str) -> torch.Tensor:
    scenes = toybox.subject_photos(seed, 4, class_name=noun, held_out=True)
    return torch.cat([to_tensor(toybox.render(scene).picture) for scene in scenes])


@pytest.fixture(scope="module")
def verdicts() -> list[PreviewScores]:
    """Of previews that show the toy itself, and of another toy as the subject's previews."""
    recogniser = ToyFeatures(load())
    scorer = FeaturePreviewScorer(recogniser, recogniser)
    cat, duck = photos(70, "cat"), photos(71, "duck")
    prompts = ("a photo of a cat", "a photo of a cat")
    return [
        scorer(PreviewPictures(subject=shown, prompts=prompts, plain=duck[:2], photos=cat))
        for shown in (cat[:2], duck[2:])
    ]


def test_the_toy_itself_scores_high_and_another_low(verdicts: list[PreviewScores]) -> None:
    itself, other = verdicts
    assert itself.identity > 0.9 > other.identity + 0.3
    assert itself.prompt > 0.6 > other.prompt + 0.3
    assert itself.copy > 0.99 > other.copy  # it is one of the photos
    assert itself.drift == other.drift < 0.7  # the plain class was ducks both times


def test_prompts_that_name_nothing_known_are_not_scored() -> None:
    recogniser, shown = ToyFeatures(load()), photos(70, "cat")[:1]
    seen = PreviewPictures(subject=shown, prompts=("something",), plain=shown, photos=shown)
    assert math.isnan(FeaturePreviewScorer(recogniser, recogniser)(seen).prompt)
    low = FeaturePreviewScorer(recogniser, Contrary(), scale=2.5)
    assert low(seen).prompt == 0  # CLIP's cosines may be negative


class Contrary:
    name, choices = "contrary", {}

    def agreement(self, pictures: torch.Tensor, prompts: object) -> torch.Tensor:
        return torch.full((len(pictures),), -0.1)
