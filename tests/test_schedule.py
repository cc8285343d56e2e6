"""swap/schedule.py: whole steps, as the paper counts them and as its code does."""

import pytest

from golden_model import GoldenCase, golden_cases
from golden_swaps import as_published, schedule_of
from understudy.errors import InputError
from understudy.transfer.schedule import first_steps


@golden_cases("c_photoswap", where=lambda case: "derived" in case.settings)
def test_golden_schedule(case: GoldenCase) -> None:
    """Which step swaps what, as read from the authors' controller."""
    derived, schedule = case.settings["derived"], schedule_of(case)
    steps = range(case.settings["steps"])
    phi = [i for i in steps if schedule.at(i).self_output]
    crossed = [i for i in steps if schedule.at(i).cross_map]
    # The controller's bounds may lie outside the run: int(50 * 1.0), int(51 * 1.0), int(50 * -0.5).
    if "phi_last_step_index_inclusive" in derived:
        assert phi == [i for i in steps if i <= derived["phi_last_step_index_inclusive"]]
    if "cross_map_steps" in derived:
        assert crossed == [i for i in steps if i < derived["cross_map_steps"]]
    if "self_map_step_range" in derived:
        maps = [i for i in range(*derived["self_map_step_range"]) if i not in phi]
        assert [i for i in steps if schedule.at(i).self_map] == maps


@pytest.mark.parametrize(
    ("fractions", "phi", "m", "a"),
    [
        ((0.8, 0.0, 0.6), 41, 0, 30),  # the first notebook: M never acts
        ((0.9, 0.0, 0.9), 46, 0, 45),
        ((0.2, 0.3, 0.4), 11, 14, 20),  # the paper's numbers through the authors' code
        ((0.0, 0.0, 0.0), 1, 0, 0),  # "off" still swaps step 0
        ((-0.02, 0.02, 0.0), 0, 0, 0),
        ((0.3, 0.6, 0.59), 16, 28, 30),  # 0.3 + 0.6 is cut off to 44; 51 * 0.59 to 30
        ((1.0, 1.0, 1.0), 50, 0, 50),
    ],
)
def test_the_published_code_swaps_these_numbers_of_steps(fractions, phi, m, a):
    schedule = as_published(50, *fractions)
    swaps = [schedule.at(i) for i in range(50)]
    counted = [sum(getattr(s, n) for s in swaps) for n in ("self_output", "self_map", "cross_map")]
    assert counted == [phi, m, a]


def test_the_papers_schedule_is_exclusive_and_independent():
    schedule = first_steps(50, 10, 25, 20)
    assert schedule.self_output == range(10)
    assert schedule.self_map == range(25)
    assert schedule.cross_map == range(20)
    assert schedule.last == 24
    assert not schedule.at(25).any


def test_fractions_are_shares_of_the_run_without_loss():
    assert first_steps(50, 0.58, 0.9, 1.0) == first_steps(50, 29, 45, 50)
    assert first_steps(10, 20, 0, 0) == first_steps(10, 10, 0, 0)
    assert first_steps(50, 0, 0, 0).last == -1


@pytest.mark.parametrize("share", [-1, -0.1, 1.5])
def test_an_impossible_share_names_itself(share):
    with pytest.raises(InputError, match=f"self_map .* Got {share}"):
        first_steps(50, 1, share, 1)
