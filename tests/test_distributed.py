"""Several processes that learn one subject: the same curve as one, shared work, one writer."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from cases import few
from test_learn import photos
from tiny import tiny_model
from understudy.concept import Concept
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


def as_team(model: StableDiffusion, folder: Path, size: int, **knobs: Any) -> list[list[float]]:
    """Losses of each of `size` processes, copies of this one."""
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
    assert [os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children] == [0] * size
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(size)]


@pytest.mark.parametrize("method", few(["dreambooth", "lora"], ["dreambooth"]))
def test_two_processes_learn_as_one(tmp_path: Path, method: str) -> None:
    model, threads = tiny_model(), torch.get_num_threads()
    torch.set_num_threads(1)  # several do not survive a fork
    alone = losses(model, tmp_path / "alone", None, method=method, preview_every=0)
    before = model.nfe
    first, second = as_team(model, tmp_path, 2, method=method)
    torch.set_num_threads(threads)
    assert first["losses"] == second["losses"]
    assert first["losses"] == pytest.approx(alone, rel=1e-4)

    # Each drew its share of three class pictures (two steps, guided) and of eight rows a step.
    looks = 2 * (4 + 4) * 2 * 2 + 2 * (16 + 16)
    assert second["rows"] - before == 1 * 2 * 2 + 4 * 4
    assert first["rows"] - before == 2 * 2 * 2 + 4 * 4 + looks
    ours, theirs = (sorted((tmp_path / d).rglob("*.safetensors")) for d in ("alone", "classes"))
    assert [p.name for p in ours] == [p.name for p in theirs] and len(ours) == 3

    # One wrote.
    folders = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert folders == ["step-000002", "step-000004"]
    assert Concept.load(tmp_path / "run" / "checkpoints" / "step-000004").phrase == "sks cat"
    assert len((tmp_path / "run" / "learn.jsonl").read_text().splitlines()) == 4 + 2
