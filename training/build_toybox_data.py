#!/usr/bin/env python
"""Render the training pictures of the built-in models: pictures, masks, key points, scenes.

    python -m training.build_toybox_data build/toybox --count 24000 --workers 2

Picture n depends on n alone, so a killed run goes on where it stopped and more can be added later.
The first third comes in groups of four scenes that share one toy (for the recogniser's identity);
in all of them reserved identities and reserved pairs never occur.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from pathlib import Path

import numpy as np

from understudy import toybox

CHUNK = 250
SIZE = 128


def scene_of(number: int) -> tuple[toybox.Scene, int]:
    """Scene `number` of the training set and the group of scenes that show the same toy."""
    if number % 12 < 4:
        group = number // 12
        identity = toybox.sample_identity(group, held_out=False)
        scene = toybox.sample_scene(number, identity=identity, subjects=1, held_out=False)
        return scene, group
    return toybox.sample_scene(number, held_out=False), -1 - number


def render_chunk(job: tuple[Path, int]) -> int:
    """Render pictures [start, start + CHUNK) into one file; return how many were made."""
    folder, start = job
    final = folder / f"{start:07d}.npz"
    if final.exists():
        return 0
    pictures = np.zeros((CHUNK, SIZE, SIZE, 3), np.uint8)
    masks = np.zeros((CHUNK, SIZE, SIZE), np.uint8)
    points = np.full((CHUNK, len(toybox.POINTS), 3), np.nan, np.float32)
    lines: list[str] = []
    for k in range(CHUNK):
        scene, group = scene_of(start + k)
        drawn = toybox.render(scene, SIZE)
        pictures[k], masks[k] = drawn.picture, np.round(255 * drawn.masks[0])
        for name, point in drawn.keypoints[0].items():
            points[k, toybox.POINTS.index(name)] = point.x, point.y, point.visible
        lines.append(json.dumps({"group": group, "scene": json.loads(scene.to_json())}))
    partial = final.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, pictures=pictures, masks=masks, points=points, scenes=np.array(lines))
    partial.rename(final)
    return CHUNK


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=24000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    jobs = [(options.folder, start) for start in range(0, options.count, CHUNK)]
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        done = 0
        for made in pool.imap(render_chunk, jobs):
            done += CHUNK
            if made:
                print(f"{done} of {options.count} pictures", flush=True)


if __name__ == "__main__":
    main()
