#!/usr/bin/env python
"""Render the class images of the built-in diffusion model and write their latents beside it.

    python -m training.class_latents [--count 16]

For each class `count` scenes with one toy that is not reserved for evaluation; see
`understudy.learn.shipped`. Half a minute on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from understudy import toybox
from understudy.files.builtin import builtin_folder
from understudy.learn.shipped import save_latents
from understudy.models.registry import load
from understudy.pictures.tensors import to_tensor

FIRST_SEED = 70_000_000  # other seeds than those of training and of every evaluation
A_CLASS = 1_000  # seeds


def scenes_of(noun: str, count: int) -> list[toybox.Scene]:
    """`count` scenes with one toy of the class, none of them with a reserved toy."""
    first = FIRST_SEED + A_CLASS * list[str](toybox.CLASSES).index(noun)
    return [
        toybox.sample_scene(
            seed,
            identity=toybox.sample_identity(seed, noun, held_out=False),
            subjects=1,
            props=0,
            occluded=False,
            held_out=False,
        )
        for seed in range(first, first + count)
    ]


@torch.no_grad()
def write(folder: Path, count: int) -> Path:
    """Encode `count` class images of each class with the model in `folder`; write them there."""
    model, latents = load(str(folder)), dict[str, Tensor]()
    for noun in toybox.CLASSES:
        scenes = scenes_of(noun, count)
        drawn = [to_tensor(toybox.render(scene, model.picture_size).picture) for scene in scenes]
        latents[noun] = torch.cat([model.encode(picture) for picture in drawn])
        print(f"{noun}: {len(drawn)} latents", flush=True)
    return save_latents(folder, latents, "python -m training.class_latents")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--out", type=Path, default=builtin_folder("toybox"),
                        help="folder of the model")  # fmt: skip
    options = parser.parse_args()
    print(write(options.out, options.count))


if __name__ == "__main__":
    main()
