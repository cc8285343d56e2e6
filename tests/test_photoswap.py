"""swap/photoswap.py: the recorded runs, with the source walked along and with its path stored."""

from __future__ import annotations

import pytest

from golden_model import GoldenCase, golden_cases
from golden_swaps import compare, inversion_of, is_swap, run, with_path

ROUNDED = 1e-6  # of arrays stored as float32


def check(case: GoldenCase, stored: bool) -> None:
    model = case.model()
    inversion = stored_path(case.folder, case.settings["source"], case) if stored else None
    steps = run(case, model, inversion or inversion_of(case, model))
    errors = compare(case, steps)
    largest = max(errors, key=lambda key: errors[key])
    rows = sum(step.nfe for step in steps)
    print(case.name, largest, errors[largest], rows)
    assert max(errors.values()) < ROUNDED
    assert rows == model.nfe


_paths: dict[tuple[object, ...], object] = {}


def stored_path(folder, source, case):
    """The path of a source, walked once for all its cases."""
    key = (folder, source, case.settings["steps"], case.settings["guidance"])
    if key not in _paths:
        model = case.model()
        _paths[key] = with_path(model, inversion_of(case, model))
    return _paths[key]


@golden_cases("c_photoswap", where=is_swap(lambda side: side <= 32))
def test_golden_swap_with_the_path_stored(case: GoldenCase) -> None:
    check(case, stored=True)


@pytest.mark.slow
@golden_cases("c_photoswap", where=is_swap(lambda side: side <= 32))
def test_golden_swap_with_the_source_walked(case: GoldenCase) -> None:
    check(case, stored=False)


@pytest.mark.slow
@golden_cases("c_photoswap", where=is_swap(lambda side: side > 32))
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "walked"])
def test_golden_swap_of_large_latents(case: GoldenCase, stored: bool) -> None:
    check(case, stored)
