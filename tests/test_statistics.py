"""Intervals, duels and agreement against closed forms and published numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from understudy.errors import InputError
from understudy.evaluate.statistics import duel, estimate, fleiss_kappa, majority


def test_the_interval_of_many_normal_numbers_is_the_textbook_one() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400).tolist()
    found = estimate(values)
    error = np.std(values, ddof=1) / math.sqrt(400)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.02)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.02)
    assert (found.count, found.units) == (400, 400)
    assert estimate(values) == found


def test_units_are_drawn_together() -> None:
    values = [0.0] * 50 + [1.0] * 50
    alone = estimate(values)
    pairs = estimate(values, ["a"] * 50 + ["b"] * 50)
    assert alone.high - alone.low < 0.25 and (pairs.low, pairs.high) == (0, 1)
    assert pairs.units == 2 and pairs.count == 100
    one = estimate(values, ["a"] * 100)
    assert one.mean == 0.5 and math.isnan(one.low)


def test_numbers_that_are_none_are_left_out() -> None:
    found = estimate([1.0, math.nan, 3.0, math.inf])
    assert found.mean == 2 and found.count == 2
    assert math.isnan(estimate([]).mean) and estimate([math.nan]).count == 0


def test_duels() -> None:
    found = duel([1, 2, 3, math.nan, math.nan], [2, 2.05, 1, 0, math.nan], tie=0.1, higher=True)
    assert (found.wins, found.ties, found.losses) == (1, 2, 2)
    other = duel([1, 2, 3], [2, 2.05, 1], tie=0.1, higher=False)
    assert other.shares() == pytest.approx((100 / 3,) * 3)
    assert duel([], [], tie=0, higher=True).shares() == (0, 0, 0)


def test_majority() -> None:
    assert majority(["a", "b", "a"], "both") == "a"
    assert majority(["a", "b", "both"], "both") == "both"
    assert majority(["a", "b"], "both") == majority([], "both") == "both"


def test_kappa_of_fleiss_own_example() -> None:
    # Fleiss 1971, table 1 as it is usually cited: 10 subjects, 14 raters, 5 categories; 0.210.
    rows = """0 0 0 0 14|0 2 6 4 2|0 0 3 5 6|0 3 9 2 0|2 2 8 1 1|7 7 0 0 0|3 2 6 3 0|2 5 3 2 2|
    6 5 2 1 0|0 2 2 3 7"""
    tables = [dict(zip("abcde", map(int, r.split()), strict=True)) for r in rows.split("|")]
    assert fleiss_kappa(tables) == pytest.approx(0.210, abs=5e-4)
    assert fleiss_kappa([{"a": 3}, {"b": 3}]) == 1
    assert math.isnan(fleiss_kappa([{"a": 3}])) and math.isnan(fleiss_kappa([]))
    with pytest.raises(InputError, match="equally many"):
        fleiss_kappa([{"a": 3}, {"a": 2}])
