#!/usr/bin/env python
"""Render the training pictures of the built-in models: pictures, masks, key points, captions.

    python -m training.build_toybox_data build/toybox --count 24000

Picture n depends on n alone, so a killed run goes on where it stopped and more can be added later.
The first third comes in groups of four scenes that share one toy (for the recogniser's identity);
in all of them reserved identities and reserved pairs never occur. Scenes are built on all CPU
cores, and rendered there or on an NVIDIA GPU (`render_cuda.py`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from training.toybox_text import CAPTIONS, random_caption
from understudy import toybox
from understudy.toybox.render import Built, KeyPoint, build, key_points

CHUNK = 250
SIZE = 128
CHECKED = 4  # scenes that a GPU draws beside the CPU before it is trusted

Job = tuple[Path, int, int]  # folder, first picture, pictures


def scene_of(number: int) -> tuple[toybox.Scene, int]:
    """Scene `number` of the training set and the group of scenes that show the same toy."""
    if number % 12 < 4:
        group = number // 12
        identity = toybox.sample_identity(group, held_out=False)
        scene = toybox.sample_scene(number, identity=identity, subjects=1, held_out=False)
        return scene, group
    return toybox.sample_scene(number, held_out=False), -1 - number


def captions_of(number: int, scene: toybox.Scene) -> list[str]:
    """CAPTIONS captions of scene `number`."""
    rng = np.random.default_rng([number, 99])
    return [random_caption(scene, rng) for _ in range(CAPTIONS)]


def chunk_file(folder: Path, start: int) -> Path:
    return folder / f"{start:07d}.npz"


@dataclass(frozen=True)
class Labels:
    """What is known of each picture of a file beside its pixels."""

    scenes: list[str]  # JSON with the scene and its group
    captions: list[list[str]]  # CAPTIONS of each


def labels_of(job: Job) -> Labels:
    _, start, count = job
    found = Labels([], [])
    for number in range(start, start + count):
        scene, group = scene_of(number)
        found.scenes.append(json.dumps({"group": group, "scene": json.loads(scene.to_json())}))
        found.captions.append(captions_of(number, scene))
    return found


def render_chunk(job: Job) -> int:
    """Render the pictures of a job on the CPU into one file; return how many were made."""
    _, start, count = job
    drawn = [toybox.render(scene_of(start + k)[0], SIZE) for k in range(count)]
    pictures, masks = [one.picture for one in drawn], [one.masks[0] for one in drawn]
    write_chunk(job, pictures, masks, [one.keypoints[0] for one in drawn], labels_of(job))
    return count


def build_chunk(job: Job) -> tuple[Job, list[Built], Labels]:
    """What a GPU needs to render the pictures of a job, and their labels."""
    _, start, count = job
    return job, [build(scene_of(start + k)[0]) for k in range(count)], labels_of(job)


def write_chunk(
    job: Job, pictures: list[ndarray], masks: list[ndarray], points: list[dict[str, KeyPoint]],
    labels: Labels,
) -> None:  # fmt: skip
    """Write a job's file: temporary name, then rename. Masks and points of the first subject."""
    folder, start, count = job
    named = np.full((count, len(toybox.POINTS), 3), np.nan, np.float32)
    for k, found in enumerate(points):
        for name, point in found.items():
            named[k, toybox.POINTS.index(name)] = point.x, point.y, point.visible
    final = chunk_file(folder, start)
    partial = final.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(
            file, pictures=np.stack(pictures), points=named, scenes=np.array(labels.scenes),
            masks=np.stack([np.round(255 * mask).astype(np.uint8) for mask in masks]),
            captions=np.array(labels.captions),
        )  # fmt: skip
    partial.rename(final)


def gpu_renderer(wanted: str) -> Callable[[list[Built]], list[Any]] | None:
    """A function that renders built scenes on the GPU, or None to render on the CPU.

    wanted: "cpu", "cuda" or "auto" (a GPU if there is one that draws what the CPU draws; the
    reason is printed if not). Raises SystemExit where "cuda" is wanted and does not work.
    """
    if wanted == "cpu":
        return None
    try:
        from training import render_cuda

        difference = render_cuda.check([scene_of(n)[0] for n in range(CHECKED)], SIZE)
    except Exception as problem:  # drivers and compilers fail in many ways
        reason = str(problem).strip().splitlines()[0] if str(problem).strip() else repr(problem)
        if wanted == "cuda":
            raise SystemExit(f"--render cuda: no GPU can render here: {reason}") from problem
        print(f"rendering on the CPU; the GPU cannot: {reason}", flush=True)
        return None
    print(f"rendering on the GPU; pictures differ by {difference:.4f} of 255 levels", flush=True)
    return lambda scenes: render_cuda.trace(scenes, SIZE)


def render_all(
    folder: Path, count: int, workers: int, *, wanted: str = "auto", chunk: int = CHUNK
) -> Iterator[int]:
    """Render `count` pictures, rounded up to whole files of `chunk`, into `folder`.

    Yields the number of pictures that are done after each file. Closing the generator stops the
    workers; complete files stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(folder, start, chunk) for start in range(0, count, chunk)]
    missing = [job for job in jobs if not chunk_file(*job[:2]).exists()]
    done = chunk * (len(jobs) - len(missing))
    if not missing:
        return
    on_gpu = gpu_renderer(wanted)
    with multiprocessing.get_context("spawn").Pool(min(workers, len(missing))) as pool:
        if on_gpu is None:
            for made in pool.imap(render_chunk, missing):
                yield (done := done + made)
        else:
            for job, scenes, labels in pool.imap(build_chunk, missing):
                traced = on_gpu(scenes)
                masks = [one.share[:, :, 0].astype(np.float32) for one in traced]
                pairs = zip(scenes, traced, strict=True)
                points = [key_points(scene, 0, one.depth) for scene, one in pairs]
                write_chunk(job, [one.picture for one in traced], masks, points, labels)
                yield (done := done + job[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=24000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--render", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args()
    begun = time.monotonic()
    for done in render_all(options.folder, options.count, options.workers, wanted=options.render):
        seconds = time.monotonic() - begun
        print(f"{done} of {options.count} pictures, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
