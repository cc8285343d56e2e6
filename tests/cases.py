"""Cases of a test of which a few show every kind of behaviour; the others are marked slow."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def few(cases: Iterable[Any], quick: Collection[Any]) -> list[Any]:
    """For pytest.mark.parametrize: all cases, slow those that are not among the quick ones."""
    every = list(cases)
    assert all(one in every for one in quick), "a quick case is none of the cases"
    return [one if one in quick else _slow(one) for one in every]


def _slow(case: Any) -> Any:
    return pytest.param(*case if isinstance(case, tuple) else (case,), marks=pytest.mark.slow)
