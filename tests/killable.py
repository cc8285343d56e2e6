"""A SwapBench run in a process of its own, to be killed: see test_rows.py."""

from __future__ import annotations

from pathlib import Path

import torch

from understudy.evaluate.protocols.swap import evaluation_steps
from understudy.evaluate.results import Run
from understudy.evaluate.toy_bench import ToyBench
from understudy.settings.evaluate import CasesSettings
from understudy.vision.recogniser import load


def run(folder: Path) -> None:
    """All 64 small cases by two methods that need no model."""
    torch.set_num_threads(1)
    bench = ToyBench(CasesSettings(side=64), load())
    for _ in evaluation_steps(Run(folder), bench, ["right-answer", "no-swap"], resume=True):
        pass
