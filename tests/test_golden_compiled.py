"""Recorded results hold with a compiled network as well: golden tests in a process of their own.

Run-time type checks cannot be compiled, so the process runs without conftest.py. The backend
traces as the real one does and computes as the network does. UNDERSTUDY_GOLDEN_COMPILED=inductor
pytest --noconftest tests/test_photoswap.py -k golden does the same with the real one.
"""

from pathlib import Path

import pytest

from apart import output
from golden_model import OWN

HERE = Path(__file__).parent
SHORT = {
    "test_diffusion.py": "golden-ddim0",
    "test_photoswap.py": "path_stored and golden-swap0",
    "test_prompt_to_prompt.py": "few_steps and golden-replace and not several",
    "test_null_text.py": "golden-null0",
}
WHOLE = dict.fromkeys((*SHORT, "test_inversions.py", "test_plug_and_play.py"), "golden")


def passed(file: str, chosen: str) -> int:
    """How many of the chosen golden tests of a file pass; none may fail."""
    words = ["--noconftest", "-n0", "-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", chosen]
    told = output(
        "-m", "pytest", *words, str(HERE / file), seconds=1800,
        UNDERSTUDY_GOLDEN=str(OWN), UNDERSTUDY_GOLDEN_COMPILED="eager",
    )  # fmt: skip
    return int(told.rsplit(" passed", 1)[0].split()[-1])


@pytest.mark.parametrize("file", SHORT)
def test_recorded_results_hold_with_a_compiled_network(file: str) -> None:
    assert passed(file, SHORT[file]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("file", WHOLE)
def test_all_recorded_results_hold_with_a_compiled_network(file: str) -> None:
    assert passed(file, WHOLE[file]) >= 1
