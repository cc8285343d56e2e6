"""Several processes that learn one subject: the same curve as one, shared work, one writer."""

from __future__ import annotations

from pathlib import Path

import pytest

from apart import printed
from cases import few
from understudy.concept import Concept


@pytest.mark.parametrize("method", few(["dreambooth", "lora"], ["dreambooth"]))
def test_two_processes_learn_as_one(tmp_path: Path, method: str) -> None:
    told = printed("learning_team.py", str(tmp_path), method)
    first, second = told["team"]
    assert first["losses"] == second["losses"]
    assert first["losses"] == pytest.approx(told["alone"], rel=1e-4)

    # Each drew its share of three class pictures (two steps, guided) and of eight rows a step.
    looks = 2 * (4 + 4) * 2 * 2 + 2 * (16 + 16)
    assert second["rows"] - told["before"] == 1 * 2 * 2 + 4 * 4
    assert first["rows"] - told["before"] == 2 * 2 * 2 + 4 * 4 + looks
    ours, theirs = (sorted((tmp_path / d).rglob("*.safetensors")) for d in ("alone", "classes"))
    assert [p.name for p in ours] == [p.name for p in theirs] and len(ours) == 3

    # One wrote.
    folders = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert folders == ["step-000002", "step-000004"]
    assert Concept.load(tmp_path / "run" / "checkpoints" / "step-000004").phrase == "sks cat"
    assert len((tmp_path / "run" / "learn.jsonl").read_text().splitlines()) == 4 + 2
