"""The script for a GPU compares like with like; tried in miniature on a CPU."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_engines
from benchmarks.gpu_table import LEARNING, WAYS, Size, Table, Way
from benchmarks.swap_speed import Bench


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    monkeypatch.setattr(gpu_engines, "WAYS", WAYS[:1])
    monkeypatch.setattr(gpu_engines, "SETTLED", 1)
    size = Size("cpu", "small", 8, 2, 1, (128,), 3, 0.1, 64, "eager")
    return Table(size, time.monotonic() + 1e6, [], [])


def row(table: Table, what: str, how: str) -> dict[str, float]:
    (found,) = (one for one in table.rows if (one["what"], one["how"]) == (what, how))
    return found


def planned(table: Table) -> tuple[Bench, Any]:
    size = table.size
    bench = Bench(size.side, size.steps, size.inner, size.shape, size.device)
    return bench, bench.settings("paper")


def test_both_swaps_have_one_inversion_and_one_schedule(table: Table) -> None:
    gpu_engines.swaps(table, False)
    assert row(table, "first swap", "float32")["apart"] < 1e-4
    ours, plain = (row(table, "null-text", how)["dB"] for how in ("float32", "plain"))
    assert ours == pytest.approx(plain, abs=0.05)


def test_both_drags_end_in_one_latent(table: Table) -> None:
    gpu_engines.drags(table, False)
    for case in ("1 point", "3 points", "20 points"):
        assert row(table, f"drag, 128 pixels, {case}: a step", "ours")["apart"] < 1e-3


def test_what_does_not_fit_into_the_time_is_named(table: Table) -> None:
    table.ends = 0.0
    gpu_engines.learning(table, compiled=True)
    assert table.rows == [] and "learning, LoRA, TF32, compiled" in table.skipped
    assert len(table.skipped) == 2 * sum(way.compiled for way in LEARNING)  # two methods


def test_compiled_ways_are_compared_with_the_plain_rows_of_an_earlier_process(
    table: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu_engines, "WAYS", (Way("eager", compiled=True),))
    later = replace(table, rows=[], answers={})
    for one in (table, later):
        one.read_from(tmp_path / "rows.jsonl")
    table.answer("swap", partial(gpu_engines.plain_swaps, table, *planned(table)))
    later.read_from(tmp_path / "rows.jsonl")
    gpu_engines.swaps(later, compiled=True)
    assert [one["how"] for one in later.rows] == ["eager"] * 3
    first, plain = row(later, "first swap", "eager"), table.rows[-1]
    assert first["apart"] < 1e-4 and first["quicker"] == pytest.approx(plain["ms"] / first["ms"])


def test_rows_of_other_conditions_are_not_compared(table: Table, tmp_path: Path) -> None:
    table.read_from(tmp_path / "rows.jsonl")
    table.add("swap", "plain", 1.0, 0.0)
    other = replace(table, rows=[], size=replace(table.size, steps=3))
    other.read_from(tmp_path / "rows.jsonl")
    assert other.known("swap", "plain") is None
    table.read_from(tmp_path / "rows.jsonl")
    assert table.earlier[0]["ms"] == 1000.0
