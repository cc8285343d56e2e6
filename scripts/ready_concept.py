"""Learn the built-in concept "toby" anew: src/understudy/weights/concepts/toby.

python scripts/ready_concept.py

The same as these two commands; the weights are then halved in precision and moved into the package:

    understudy toybox subject --seed 49 --photos 4 --out toby
    understudy learn toby --class dog --name toby --method lora --seed 0

It takes some minutes on two cores. The same machine gives the same weights.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from understudy.concept import Concept
from understudy.files.builtin import CONCEPTS

NAME, NOUN, SEED = "toby", "dog", 49


def understudy(*words: str) -> None:
    """Run a command; a failure ends the script."""
    subprocess.run([sys.executable, "-m", "understudy.cli", *words], check=True)


def keep(made: Path, target: Path) -> None:
    """Write the concept with float16 weights: half the size."""
    learnt = Concept.load(made)
    half = {name: tensor.half() for name, tensor in learnt.tensors.items()}
    replace(learnt, tensors=half).save(target)
    for file in target.iterdir():
        file.chmod(0o644)


def main() -> None:
    """Learn the concept and keep its two files."""
    with tempfile.TemporaryDirectory() as place:
        photos, made = f"{place}/photos", Path(place) / NAME
        understudy("toybox", "subject", "--seed", str(SEED), "--photos", "4", "--out", photos)
        words = ("--class", NOUN, "--name", NAME, "--method", "lora", "--seed", "0")
        understudy("learn", photos, *words, "--out", str(made))
        keep(made, CONCEPTS / NAME)


if __name__ == "__main__":
    main()
