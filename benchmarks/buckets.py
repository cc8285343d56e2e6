"""Training on photos of mixed aspect ratios against their square crops: what identity is lost?

    scripts/bench buckets [--limit N] [--first N]

For each held-out subject four photos of different shapes are rendered. One concept is learnt from
them at the nearest aspect ratios, one from the middle of each photo. The examiner compares eight
pictures drawn with each concept with unseen photos of the subject.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks import cases
from benchmarks.dreambooth import in_places, mean
from understudy import toybox
from understudy.concept import applied
from understudy.evaluate import truth
from understudy.jobs.pool import Pool
from understudy.jobs.request import Job
from understudy.jobs.training_photos import LearnWish, subject_of
from understudy.jobs.work import Work
from understudy.learn import learn_steps
from understudy.models.interface import DiffusionModel
from understudy.models.registry import load
from understudy.pictures.photo import write_pixels
from understudy.pictures.tensors import to_pixels
from understudy.settings import GenerateSettings, LearnSettings
from understudy.vision import examiner
from understudy.vision.features import ToyFeatures

SIZES = ((192, 320), (320, 200), (240, 320), (320, 240))  # height, width of the four photos
WAYS = {"square crops": False, "buckets": True}


def case(
    model: DiffusionModel, features: ToyFeatures, number: int, store: Path
) -> tuple[dict[str, float], list[np.ndarray]]:
    """The identity of each way of learning, and the pictures drawn."""
    subject = cases.subject(number)
    noun = subject.identity.class_name
    unseen = features.of(truth.pictures(subject.unseen))
    scores: dict[str, float] = {}
    shown: list[np.ndarray] = []
    with tempfile.TemporaryDirectory() as scratch:
        for place, (scene, size) in enumerate(zip(subject.photos, SIZES, strict=True)):
            write_pixels(Path(scratch) / f"{place}.png", toybox.render(scene, size).picture)
        for way, buckets in WAYS.items():
            settings = LearnSettings.filled({"buckets": buckets}, model.name)
            wish = LearnWish("toy", noun, Path(scratch))
            read = subject_of(Work(Job(verb="learn"), Pool()), model, settings, wish)
            *_, last = learn_steps(model, read, settings=settings, cache=store)
            assert last.concept is not None
            with torch.no_grad(), applied(model, last.concept):
                drawing = GenerateSettings.filled({}, model.name)
                pictures = in_places(model, last.concept.phrase, drawing)
            scores[way] = mean(features.of(pictures), unseen)
            shown.append(np.concatenate([to_pixels(one[None]) for one in pictures], axis=1))
    return scores, shown


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="toybox")
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--store", type=Path, default=Path("build/measured/classes"))
    parser.add_argument("--sheet", type=Path, help="write the pictures as a .png")
    wish = parser.parse_args()
    model, features = load(wish.model), ToyFeatures(examiner.load_scorer())
    found: list[dict[str, float]] = []
    rows: list[np.ndarray] = []
    for number in range(wish.first, wish.first + wish.limit):
        scores, shown = case(model, features, number, wish.store)
        found.append(scores)
        rows += shown
        print(number, *(f"{way} {score:.3f}" for way, score in scores.items()), flush=True)
        if wish.sheet:
            write_pixels(wish.sheet, np.concatenate(rows))
    for way in WAYS:
        print(f"{way:13} mean {np.mean([scores[way] for scores in found]):.3f}")


if __name__ == "__main__":
    main()
