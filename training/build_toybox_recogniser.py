#!/usr/bin/env python
"""Train the recogniser on files of renders and ship its weights in the package.

    python -m training.build_toybox_data build/toybox --count 24000
    python -m training.build_toybox_recogniser build/toybox

The model card says what it scores on renders of reserved toys, which never occur in training.
Killed, it goes on from its last save when started again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from training.held_out import reserved_toys
from training.recogniser_examples import Examples
from training.recogniser_training import Trainer, accuracy, save_weights, train_steps
from understudy.vision.recogniser import BUILT_IN, PictureNetwork

CARD = """# The toy world's recogniser

What a toybox picture shows: the main subject's class, colours, pattern, accessory, stance, key
points, mask and an identity embedding, and the background. Trained from scratch by
`training/build_toybox_recogniser.py` on {trained} renders, {epochs} epochs, {minutes:.0f} min of
{threads} CPU thread(s); {parameters:,} parameters, shipped in half precision.

It scores toybox pictures and is of no use for photographs. Its figures on {held_out}
held-out renders (share right, unless said; points in pixels of 128; "told apart" is the chance that
two views of one unseen toy score higher than two toys of one class):

| | |
| --- | --- |
{rows}
"""


def main() -> None:
    wish = options()
    torch.set_num_threads(wish.threads)
    examples = Examples.read(sorted(wish.data.glob("*.npz")))
    wish.runs.mkdir(parents=True, exist_ok=True)
    trainer, state = Trainer(seed=wish.seed), wish.runs / "recogniser.pt"
    if state.exists():
        trainer.load(state)
        print(f"going on from step {trainer.index}", flush=True)
    trainer.network.compile()
    started, shown = time.monotonic(), trainer.index
    smooth: dict[str, float] = {}
    for step in train_steps(trainer, examples, epochs=wish.epochs, batch=wish.batch):
        for name, value in step.losses.items():
            smooth[name] = 0.97 * smooth.get(name, value) + 0.03 * value
        if step.index % 100 == 0:
            rate = (step.index - shown) * wish.batch / (time.monotonic() - started)
            words = " ".join(f"{name} {value:.3f}" for name, value in smooth.items())
            print(f"{step.index}/{step.total} {rate:.0f} pictures/s {words}", flush=True)
        if step.index % 300 == 0:
            trainer.save(state)
    trainer.save(state)
    finish(wish, trainer.averaged, len(examples), (time.monotonic() - started) / 60)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="folder of renders")
    parser.add_argument("--runs", type=Path, default=Path("build/recogniser"), help="for resuming")
    parser.add_argument("--out", type=Path, default=BUILT_IN, help="where the weights go")
    parser.add_argument("--held-out", type=int, default=150, help="reserved toys, four scenes each")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def finish(wish: argparse.Namespace, network: PictureNetwork, trained: int, minutes: float) -> None:
    """Measure the averaged weights on reserved toys, ship them, write the card."""
    held_out = Examples.draw(reserved_toys(wish.held_out))
    figures = accuracy(network, held_out)
    print(json.dumps(figures, indent=1), flush=True)
    save_weights(network, wish.out, {"width": 64, "identity": 64, "held_out": figures})
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in figures.items())
    card = CARD.format(
        trained=trained,
        epochs=wish.epochs,
        minutes=minutes,
        threads=wish.threads,
        parameters=sum(weight.numel() for weight in network.parameters()),
        held_out=len(held_out),
        rows=rows,
    )
    (wish.out / "README.md").write_text(card)


if __name__ == "__main__":
    main()
