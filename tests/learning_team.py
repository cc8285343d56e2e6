"""Learns one subject alone and in two processes; prints the losses and how many rows each computed.

A program for `apart.printed`: a process that has threads is not forked.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import torch

from test_learn import photos
from tiny import tiny_model
from understudy.learn import Subject, learn_steps
from understudy.models.unet.stable_diffusion import StableDiffusion
from understudy.settings import LearnSettings

KNOBS: dict[str, Any] = {
    "steps": 4, "learning_rate": 1e-3, "batch_size": 2, "accumulate": 2, "prior_samples": 3,
    "prior_steps": 2, "save_every": 2, "preview_every": 4,
}  # fmt: skip


def losses(model: StableDiffusion, cache: Path, run: Path | None, **knobs: Any) -> list[float]:
    settings = LearnSettings(**{**KNOBS, **knobs})
    steps = learn_steps(
        model, Subject("rex", "cat", photos(), "sks"), settings=settings, cache=cache, run=run
    )
    return [step.loss for step in steps if step.phase == "learn"]


def as_team(model: StableDiffusion, folder: Path, size: int, **knobs: Any) -> list[dict[str, Any]]:
    """Losses and rows of each of `size` processes, copies of this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children: list[int] = []
    for rank in range(size):
        child = os.fork()
        if child:
            children.append(child)
            continue
        code = 1
        try:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            found = losses(model, folder / "classes", folder / "run", **knobs)
            told = {"losses": found, "rows": model.nfe}
            (folder / f"rank{rank}.json").write_text(json.dumps(told))
            code = 0
        finally:
            os._exit(code)
    for _ in range(size):
        child, status = os.wait()
        children.remove(child)
        if status != 0:  # the others would wait for it, for hours
            for other in children:
                os.kill(other, signal.SIGKILL)
            raise AssertionError(f"a process of the team failed: {status}")
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(size)]


if __name__ == "__main__":
    folder, method = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)  # several do not survive a fork
    model = tiny_model()
    alone = losses(model, folder / "alone", None, method=method, preview_every=0)
    before = model.nfe
    team = as_team(model, folder, 2, method=method)
    print(json.dumps({"alone": alone, "before": before, "team": team}))
