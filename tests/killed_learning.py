"""Learns in child processes that are killed and resumed; prints how many kills hit.

A program for `apart.printed`, not part of the process that runs the tests: that one has threads,
and a fork of a process with threads may wait forever for a lock that one of them held.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from test_checkpoint import finished
from test_learn import same
from tiny import tiny_model
from understudy.learn import run as run_module
from understudy.models.unet.stable_diffusion import StableDiffusion


def kills(folder: Path, count: int) -> tuple[int, int]:
    """Kill `count` runs; the last resumed one has the concept of a run that nobody killed.

    Returns how many kills hit a run, and how many of these while it was saving.
    """
    model = tiny_model()
    _ = model.base_fingerprint
    torch.set_num_threads(1)  # with several, neither forks nor equal bits
    whole = finished(model, None, steps=12)
    run = folder / "run"
    hit, saving = kill_and_resume(model, run, count, seed=count)
    final = finished(model, run, resume=begun(run), save_every=1, steps=12)
    assert same(dict(final.tensors), dict(whole.tensors)), "another concept than without kills"
    assert not list(run.rglob("*.partial")), "half-written files are left"
    return hit, saving


def kill_and_resume(model: StableDiffusion, run: Path, kills: int, seed: int) -> tuple[int, int]:
    """Kill runs at random moments, half of them while they save; finish those that are left."""
    chance = random.Random(seed)
    hit = saving = 0
    while hit < kills:
        child, said = _child(model, run, begun(run))
        wanted = chance.random() < 0.5
        while wanted and (byte := os.read(said, 1)) not in (b"S", b""):
            pass  # until it saves, or ends
        time.sleep(chance.random() * (0.004 if wanted else 0.25))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        last = byte if wanted else b""
        while select.select([said], [], [], 0)[0] and (more := os.read(said, 4096)):
            last = more[-1:]
        os.close(said)
        if os.WIFSIGNALED(status):
            hit, saving = hit + 1, saving + (last == b"S")
        elif os.waitstatus_to_exitcode(status) == 0:  # done before it was hit: begin anew
            shutil.rmtree(run)
        else:
            raise AssertionError(f"a resumed run failed: {status}")
    return hit, saving


def begun(run: Path) -> bool:
    """Whether the run has a checkpoint to resume from."""
    return any((run / "checkpoints").glob("s*"))


def _child(model: StableDiffusion, run: Path, resume: bool) -> tuple[int, int]:
    """A run in a process of its own, which says S when it begins to save and s when it has."""
    here, there = os.pipe()
    child = os.fork()  # a copy of this one with the tiny model in memory, so each is quick
    if child:
        os.close(there)
        return child, here
    code = 1
    try:
        keep = run_module.LearnRun.save

        def told(self: Any) -> Path | None:
            os.write(there, b"S")
            saved = keep(self)
            os.write(there, b"s")
            return saved

        run_module.LearnRun.save = told  # type: ignore[method-assign]
        finished(model, run, resume=resume, save_every=1, steps=12)
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    began = time.monotonic()
    hit, saving = kills(Path(sys.argv[1]), int(sys.argv[2]))
    seconds = round(time.monotonic() - began)
    print(json.dumps({"kills": hit, "while saving": saving, "seconds": seconds}))
