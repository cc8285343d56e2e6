"""A recogniser that has learnt nothing: its numbers mean nothing, but they are numbers."""

from __future__ import annotations

import torch

from understudy.toybox import CLASSES, POINTS
from understudy.vision.recogniser import HEADS, Recogniser, RecogniserNetwork, Vocabulary


def untaught() -> Recogniser:
    """The same one each time."""
    vocabulary = Vocabulary(words={head: tuple(CLASSES) for head in HEADS}, points=POINTS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = RecogniserNetwork(vocabulary, width=16, identity=8)
    return Recogniser(network.requires_grad_(False).eval())
