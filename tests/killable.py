"""Runs in a process of their own, to be killed: see test_rows.py and test_kills.py."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from understudy import cli
from understudy.evaluate.protocols.swap import evaluation_steps
from understudy.evaluate.results import ResultsFolder
from understudy.evaluate.toy_bench import ToyBench
from understudy.settings.evaluate import CasesSettings
from understudy.vision.recogniser import load


def run(folder: Path) -> None:
    """All 64 small cases by two methods that need no model."""
    torch.set_num_threads(1)
    bench = ToyBench(CasesSettings(side=64), load())
    for _ in evaluation_steps(
        ResultsFolder(folder), bench, ["right-answer", "no-swap"], resume=True
    ):
        pass


def command(words: list[str], folder: Path, cache: Path) -> None:
    """One command line in `folder`, with a cache of its own; what it shows goes to a log."""
    torch.set_num_threads(1)
    os.chdir(folder)
    os.environ["UNDERSTUDY_CACHE"] = str(cache)
    os.environ["HF_HUB_OFFLINE"] = "1"
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    raise SystemExit(cli.main(words))
