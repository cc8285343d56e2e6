"""How well `--select` finds subjects of rendered scenes: overlap (IoU) with the true masks.

    scripts/bench masks [--limit N] [--first N] [--sheet FILE]

Held-out scenes, of several sizes and shapes, with one to three subjects. The word is the class of
the first subject, in the prompt "a photo of a CLASS"; the true mask is that of all subjects of the
class. The click is the point of the true mask that is nearest to its centroid.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.cases import FIRST_SEED
from understudy import toybox
from understudy.masks.find import find_mask
from understudy.masks.selection import Selection
from understudy.models.interface import DiffusionModel
from understudy.models.registry import load
from understudy.pictures.photo import write_pixels

SIZES = ((256, 256), (240, 320), (320, 240), (300, 640), (480, 640))  # height, width
WAYS = ("word", "word and click", "click")


def case(model: DiffusionModel, number: int) -> tuple[dict[str, float], np.ndarray]:
    """The overlap of each way of selecting, and the pictures: photo, one cut-out a way, truth."""
    scene = toybox.sample_scene(FIRST_SEED + 500_000 + number, held_out=True)
    drawn = toybox.render(scene, SIZES[number % len(SIZES)])
    word = scene.subjects[0].identity.class_name
    meant = [s.identity.class_name == word for s in scene.subjects]
    true = drawn.masks[meant].max(0) > 0.5
    rows, columns = np.nonzero(drawn.masks[0] > 0.5)
    nearest = ((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2).argmin()
    click = f"{columns[nearest]},{rows[nearest]}"
    own = drawn.masks[0] > 0.5
    scores: dict[str, float] = {}
    shown = [drawn.picture]
    for way, texts, wanted in zip(
        WAYS, ([word], [word, click], [click]), (true, own, own), strict=True
    ):
        selection = Selection.of(texts)
        mask = find_mask(model, drawn.picture, f"a photo of a {word}", selection)
        scores[way] = overlap(mask > 0.5, wanted)
        shown.append((drawn.picture * mask[..., None]).astype(np.uint8))
    return scores, np.concatenate([*shown, drawn.picture * own[..., None]], axis=1)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union."""
    return float((one & other).sum() / max(1, (one | other).sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="toybox")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="write the worst cases as a .png")
    wish = parser.parse_args()
    model = load(wish.model)
    found = []
    for number in range(wish.first, wish.first + wish.limit):
        scores, shown = case(model, number)
        found.append((scores, shown if wish.sheet else None))
        print(number, *(f"{scores[way]:.3f}" for way in WAYS), flush=True)
    for way in WAYS:
        values = np.array([scores[way] for scores, _ in found])
        low, middle = np.quantile(values, (0.1, 0.5))
        print(f"{way:15} mean {values.mean():.3f}  median {middle:.3f}  10th percentile {low:.3f}")
    if wish.sheet:
        found.sort(key=lambda pair: pair[0]["word"])
        worst = [shown for _, shown in found[:12] if shown is not None]
        height, width = max(p.shape[0] for p in worst), max(p.shape[1] for p in worst)
        padded = [
            np.pad(p, ((0, height - p.shape[0]), (0, width - p.shape[1]), (0, 0))) for p in worst
        ]
        write_pixels(wish.sheet, np.concatenate(padded))


if __name__ == "__main__":
    main()
