#!/usr/bin/env python
"""Train the examiner, the network that scores evaluations, and ship its weights in the package.

    python -m training.examiner_data build/examiner/renders --families 4000
    python -m training.build_toybox_examiner build/examiner/renders --minutes 120

Stopped, it continues from its last save when started again; `--minutes` counts all runs together,
so a larger number trains a finished examiner further. `--measure` measures the last save and writes
nothing into the package. Runs on the CPU or with `--device cuda`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from training.examiner_data import FAMILIES_PER_FILE, render_file
from training.examiner_measures import figures, held_out, table
from training.examiner_training import TOYS, VIEWS, train_until, trainer
from training.recogniser_examples import Examples, vocabulary
from training.recogniser_training import Trainer
from understudy.files.atomic import replacing, write_json
from understudy.files.tensors import save_tensors
from understudy.vision import recogniser
from understudy.vision.examiner import BUILT_IN, MANIFEST, WEIGHTS
from understudy.vision.recogniser import PictureNetwork

CARD = """# The examiner

Scores evaluations on toybox pictures, and does nothing else: class, colours, pattern, accessory,
stance, key points and mask of the main subject, the background, and an identity embedding. It is
independent of the recogniser, which chooses among candidates: another architecture, other training
pictures, another seed. It knows nothing of photographs.

Trained from scratch by `training/build_toybox_examiner.py` on {samples:,} samples of {renders:,}
renders, {minutes:.0f} min of wall-clock time on a shared machine ({threads} thread(s), {device});
{parameters:,} parameters, shipped in half precision.

Figures on held-out renders (`python -m training.examiner_measures`): share right, unless said;
points in pixels of 128; "told apart" is the chance that two views of one unseen toy score higher
than views of two toys: of one class, of equal colours and pattern among the 600, and of look-alikes
that differ in nothing but proportions or class.

{rows}
"""
SAVE_EVERY = 300  # seconds
SHAPE = {"width": 64, "identity": 64, "queries": 8}


class Renders:
    """The pictures of a folder. With `grow`, one more file is rendered every `grow` epochs."""

    def __init__(self, folder: Path, grow: int) -> None:
        self.folder, self.grow = folder, grow
        self.read: set[Path] = set()
        self.examples: Examples | None = None

    def __call__(self, epoch: int) -> Examples:
        if self.grow and epoch and epoch % self.grow == 0:
            taken = [int(file.stem) for file in self.folder.glob("*.npz")]
            render_file(self.folder, max(taken, default=-FAMILIES_PER_FILE) + FAMILIES_PER_FILE)
        new = sorted(set(self.folder.glob("*.npz")) - self.read)
        if new:
            more = Examples.read(new)
            self.examples = more if self.examples is None else self.examples.with_more(more)
            self.read.update(new)
        if self.examples is None:
            raise SystemExit(f"{self.folder} holds no renders: run training.examiner_data first.")
        return self.examples


def main() -> None:
    wish = options()
    torch.set_num_threads(wish.threads)
    wish.runs.mkdir(parents=True, exist_ok=True)
    learner, state = trainer(wish.seed, device=wish.device), wish.runs / "examiner.pt"
    if state.exists():
        learner.load(state)
        print(f"going on from step {learner.index}, {learner.seconds / 60:.0f} min", flush=True)
    if not wish.measure:
        train(wish, learner, state)
    finish(wish, learner)


def train(wish: argparse.Namespace, learner: Trainer, state: Path) -> None:
    if wish.compile:
        learner.network.compile()
    smooth: dict[str, float] = {}
    saved, began, first = time.monotonic(), time.monotonic(), learner.index
    read = Renders(wish.data, wish.grow)
    for step in train_until(learner, read, seconds=60 * wish.minutes, families=wish.families):
        for name, value in step.losses.items():
            smooth[name] = 0.97 * smooth.get(name, value) + 0.03 * value
        if step.index % 20 == 0:
            rate = (step.index - first) * wish.families * TOYS * VIEWS / (time.monotonic() - began)
            words = " ".join(f"{name} {value:.3f}" for name, value in smooth.items())
            done = f"{step.index} {step.progress:.1%} {rate:.0f} pictures/s"
            print(f"{done} {words}", flush=True)
        if time.monotonic() - saved > SAVE_EVERY:
            learner.save(state)
            saved = time.monotonic()
    learner.save(state)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="folder of renders")
    parser.add_argument("--runs", type=Path, default=Path("build/examiner"), help="for resuming")
    parser.add_argument("--out", type=Path, default=BUILT_IN, help="where the weights go")
    parser.add_argument("--minutes", type=float, default=120, help="of training, all runs together")
    parser.add_argument("--families", type=int, default=16, help="in a batch, 4 pictures each")
    parser.add_argument("--grow", type=int, default=0, help="render one more file every N epochs")
    parser.add_argument("--held-out", type=int, default=150, help="reserved toys, four scenes each")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile; needs a C compiler")
    parser.add_argument("--measure", action="store_true", help="measure the last save, no training")
    parser.add_argument("--seed", type=int, default=20_000)
    return parser.parse_args()


def finish(wish: argparse.Namespace, learner: Trainer) -> None:
    """Measure the averaged weights beside the recogniser; ship them unless only measuring."""
    network, sets = learner.averaged.to("cpu"), held_out(wish.held_out)
    columns = {
        "examiner": figures(network, *sets),
        "recogniser": figures(recogniser.load().network, *sets),
    }
    print(table(columns), flush=True)
    if wish.measure:
        return
    save(network, wish.out, {**SHAPE, "held_out": columns["examiner"]})
    said = CARD.format(
        samples=learner.index * wish.families * TOYS * VIEWS,
        renders=sum(len(np.load(file)["scenes"]) for file in wish.data.glob("*.npz")),
        minutes=learner.seconds / 60,
        threads=wish.threads,
        device=wish.device,
        parameters=sum(weight.numel() for weight in network.parameters()),
        rows=table(columns),
    )
    with replacing(wish.out / "README.md") as staged:
        staged.write_text(said)


def save(network: PictureNetwork, folder: Path, record: dict[str, object]) -> None:
    """Half-precision weights and what they mean, ready for `examiner.load`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    save_tensors(folder / WEIGHTS, state)
    described = {**record, "vocabulary": vocabulary().to_json()}
    write_json(folder / MANIFEST, described)


if __name__ == "__main__":
    main()
