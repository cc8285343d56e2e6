"""Identity of pictures drawn with a concept at strengths from 0 to 1.2.

    scripts/bench strength [--limit N] [--first N]

For each toy of SwapBench wide: the same four pictures at every strength, compared by the examiner
with unseen photos of the toy. The curve should rise from 0 to 1.2.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.wide import learnt
from understudy import toybox
from understudy.concept import Concept, applied
from understudy.evaluate import swapbench, truth
from understudy.generate import generate
from understudy.models.registry import load
from understudy.pictures.photo import write_pixels
from understudy.pictures.tensors import to_pixels
from understudy.settings import GenerateSettings
from understudy.vision import examiner

STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
PLACES = ("meadow", "beach", "snow", "studio")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--store", type=Path, default=Path("build/measured/wide"))
    wish = parser.parse_args()
    model, scorer = load("toybox"), examiner.load_scorer()
    drawing = GenerateSettings.filled({"steps": wish.steps}, model.name)
    curves: list[list[float]] = []
    for number in range(wish.first, wish.first + wish.limit):
        subject = swapbench.subject(number)
        concept = Concept.load(learnt(subject, wish.store))
        photos = scorer.identity(truth.pictures(subject.photos)).mean(0, keepdim=True)
        prompts = [f"a photo of a {concept.phrase} {toybox.BACKGROUNDS[one]}" for one in PLACES]
        curve, rows = list[float](), list[np.ndarray]()
        for strength in STRENGTHS:
            with torch.no_grad(), applied(model, replace(concept, strength=strength)):
                drawn = generate(model, prompts, range(len(PLACES)), drawing)
            likeness = torch.cosine_similarity(scorer.identity(drawn), photos)
            curve.append(round(float(likeness.mean()), 4))
            rows.append(np.concatenate([to_pixels(one[None]) for one in drawn]))
        curves.append(curve)
        file = wish.store / f"strength-{subject.name}.txt"
        file.write_text(json.dumps(curve))
        write_pixels(file.with_suffix(".png"), np.concatenate(rows, axis=1))
        rising = all(later >= earlier for earlier, later in zip(curve, curve[1:], strict=False))
        print(subject.name, *curve, "rises" if rising else "does not rise everywhere", flush=True)
    print("strength", *STRENGTHS)
    print("mean    ", *np.mean(curves, axis=0).round(3))


if __name__ == "__main__":
    main()
