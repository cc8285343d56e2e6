"""The script for a GPU compares like with like; tried in miniature on a CPU."""

from __future__ import annotations

import time

import pytest

from benchmarks import gpu_engines
from benchmarks.gpu_table import LEARNING, WAYS, Size, Table


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    monkeypatch.setattr(gpu_engines, "WAYS", WAYS[:1])
    size = Size("cpu", "small", 8, 2, 1, (128,), 0.1, 64, "eager")
    return Table(size, time.monotonic() + 1e6, [], [])


def row(table: Table, what: str, how: str) -> dict[str, float]:
    (found,) = (one for one in table.rows if (one["what"], one["how"]) == (what, how))
    return found


def test_both_swaps_have_one_inversion_and_one_schedule(table: Table) -> None:
    gpu_engines.swaps(table)
    assert row(table, "first swap", "float32")["apart"] < 1e-4
    ours, plain = (row(table, "null-text", how)["dB"] for how in ("float32", "plain"))
    assert ours == pytest.approx(plain, abs=0.05)


def test_both_drags_end_in_one_latent(table: Table) -> None:
    gpu_engines.drags(table)
    for case in ("1 point", "3 points", "20 points"):
        assert row(table, f"drag, 128 pixels, {case}: a step", "ours")["apart"] < 1e-3


def test_what_does_not_fit_into_the_time_is_named(table: Table) -> None:
    table.ends = 0.0
    gpu_engines.learning(table)
    assert table.rows == [] and "learning, LoRA, TF32, compiled" in table.skipped
    assert len(table.skipped) == 2 * (1 + len(LEARNING))  # two methods; the plain way, and ours
