"""Projected photos, dragged: is there still a face, and did the landmarks arrive?

    scripts/bench plausible [--count N] [--sheet FILE]

Held-out toy faces are projected and the generator is tuned to each; then every face is dragged in
four ways (turn, mouth, ears, eyes) under each of the ways of holding the latent. A face counts as
found where the landmark finder is as certain as for all but the worst 1 % of rendered faces.
"""

from __future__ import annotations

import argparse
import json
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.real_faces import EDITS, held_out, landmarks, reconstruction, wanted
from understudy.drag.session import drag_steps
from understudy.generators.folder import load_generator
from understudy.generators.stylegan2.generator import StyleGAN2
from understudy.pictures.photo import write_pixels
from understudy.pictures.tensors import to_pixels
from understudy.project import Latent
from understudy.settings.drag import DragSettings
from understudy.settings.project import ProjectSettings
from understudy.vision.landmarks import LandmarkFinder
from understudy.vision.landmarks import load as load_finder

WAYS: dict[str, dict[str, Any]] = {
    "as before": {},
    "principal": {"principal": True},
    "prior 0.1": {"prior_weight": 0.1},
    "both": {"principal": True, "prior_weight": 0.1},
}
CALIBRATION = 64  # rendered faces
REACH = 1  # cells about a peak that belong to it


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--steps", type=int, default=450, help="of projection")
    parser.add_argument("--tune-steps", type=int, default=350)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--store", type=Path, default=Path("build/measured/plausible"))
    parser.add_argument("--sheet", type=Path)
    wish = parser.parse_args()
    wish.store.mkdir(parents=True, exist_ok=True)
    model, finder = load_generator("toybox-gan", device="cpu"), load_finder()
    photos = held_out(max(wish.count, CALIBRATION))
    least = float(np.quantile([certainty(finder, one[None]) for one in photos], 0.01))
    print(f"a face is found at a certainty of {least:.3f} or more", flush=True)
    given = {"steps": wish.steps, "tune_steps": wish.tune_steps}
    settings = ProjectSettings.filled(given, model.name)
    log = wish.store / f"drags-{wish.steps}-{wish.tune_steps}.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["face"], row["edit"], row["way"]) for row in rows}
    for number in range(wish.count):
        place = wish.store / f"{number}-{wish.steps}-{wish.tune_steps}"
        if not place.with_suffix(".safetensors").exists():
            reconstruction(model, settings, photos[number : number + 1], place)
        latent = Latent.load(place.with_suffix(".safetensors"))
        for edit in EDITS:
            for way in wish.ways.split(","):
                if (number, edit, way) not in done:
                    row, picture = dragged(latent.tuned(model), latent.ws, finder, edit, way)
                    rows.append({"face": number, "edit": edit, "way": way, **row})
                    write_pixels(wish.store / f"{number}-{edit}-{way}.png", to_pixels(picture))
                    with log.open("a") as stream:
                        stream.write(json.dumps(rows[-1]) + "\n")
                    print(rows[-1], flush=True)
    for way in wish.ways.split(","):
        some = [row for row in rows if row["way"] == way]
        found = np.mean([row["certainty"] >= least for row in some])
        numbers = (np.mean([row[name] for row in some]) for name in ("before", "after", "steps"))
        told = "{:.2f} px before, {:.2f} after, {:.0f} steps".format(*numbers)
        print(f"{way:10} {len(some)} drags: face found {found:.1%}, landmarks {told}")
    if wish.sheet:
        write_pixels(wish.sheet, sheet(wish.store, photos, wish.count, wish.ways.split(",")))


def dragged(
    model: StyleGAN2, ws: Tensor, finder: LandmarkFinder, edit: str, way: str
) -> tuple[dict[str, float], Tensor]:
    """One drag: certainty of the finder, distance of the landmarks to their targets."""
    with torch.no_grad():
        before = model.pictures(ws).clamp(-1, 1)
    pairs, names = wanted(finder, before, EDITS[edit])
    settings = DragSettings.filled(WAYS[way], "toybox-gan")
    (last,) = deque(drag_steps(model, ws, pairs, settings=settings), maxlen=1)
    with torch.no_grad():
        after = model.pictures(last.latent).clamp(-1, 1)
    targets = torch.tensor([target for _, target in pairs]) + 0.5
    far = [
        float((torch.tensor([landmarks(finder, p)[n] for n in names]) - targets).norm(dim=1).mean())
        for p in (before, after)
    ]
    row = {"certainty": round(certainty(finder, after), 4), "before": round(far[0], 3)}
    row |= {"after": round(far[1], 3), "steps": last.index, "left": sum(last.left) / len(last.left)}
    return row, after


@torch.no_grad()
def certainty(finder: LandmarkFinder, picture: Tensor) -> float:
    """The share of a point's heat that lies at its peak, the mean over all points: near 1 where the
    finder knows where every part of a face is, near 0 where it sees none."""
    heat, seen = finder.network(picture)
    chance = heat.flatten(2).softmax(2).unflatten(2, heat.shape[2:])
    size = 2 * REACH + 1
    near = torch.nn.functional.avg_pool2d(chance, size, 1, REACH) * size**2
    weights = seen.sigmoid()
    return float((near.flatten(2).amax(2) * weights).mean())


def sheet(store: Path, photos: Tensor, count: int, ways: list[str]) -> np.ndarray:
    """A row for each face and way: the photo, then the four edits."""
    from understudy.pictures.photo import read_photo

    rows: list[np.ndarray] = []
    for number in range(count):
        for way in ways:
            drawn = [read_photo(store / f"{number}-{edit}-{way}.png").pixels for edit in EDITS]
            rows.append(np.concatenate([to_pixels(photos[number : number + 1]), *drawn], axis=1))
    return np.concatenate(rows)


if __name__ == "__main__":
    main()
