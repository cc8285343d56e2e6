"""What a class costs: its pictures drawn once, and nothing for the second subject of the class.

    python -m benchmarks.class_latents [--samples 200] [--steps 25] [--class cat] [--threads 1]

Kept in results/class_latents.json and .md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.rows import Spread, report
from understudy.evaluate import swapbench
from understudy.evaluate.truth import pictures
from understudy.learn import Subject, learn_steps
from understudy.models.interface import DiffusionModel
from understudy.models.registry import load
from understudy.settings import LearnSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="toybox")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--steps", type=int, default=25, help="denoising steps of a class picture")
    parser.add_argument("--class", dest="noun", default="cat")
    parser.add_argument("--threads", type=int, default=1)
    wish = parser.parse_args()
    torch.set_num_threads(wish.threads)
    model = load(wish.model)
    given = {"prior_samples": wish.samples, "prior_steps": wish.steps, "steps": 1}
    settings = LearnSettings.filled(given, wish.model)
    with tempfile.TemporaryDirectory() as folder:
        first, second = (class_seconds(model, n, wish.noun, settings, Path(folder)) for n in (0, 1))
    found = {
        "first subject of the class, s": first,
        "a class picture, s": first / wish.samples,
        "second subject of the class, s": second,
    }
    under = {"model": f"{model.name} {model.fingerprint[:12]}", "samples": wish.samples,
             "steps": wish.steps, "batch": 16, "guidance": settings.prior_guidance,
             "precision": settings.precision, "threads": wish.threads}  # fmt: skip
    title = "The class's own pictures: seconds of the processor on a CPU"
    print(report("class_latents", title, under, {k: Spread.of([v]) for k, v in found.items()}))


def class_seconds(
    model: DiffusionModel, number: int, noun: str, settings: LearnSettings, cache: Path
) -> float:
    """From the asking for a subject's learning to its first step of training: the photos encoded,
    and those class pictures drawn that `cache` lacks."""
    clock = time.process_time if model.device.type == "cpu" else time.perf_counter
    photos = pictures(swapbench.subject(number).photos)
    began = clock()
    for step in learn_steps(model, Subject("toy", noun, photos), settings=settings, cache=cache):
        if step.phase == "learn":  # one step is made by now, the same for both
            return clock() - began
    raise AssertionError("nothing was learnt")


if __name__ == "__main__":
    main()
