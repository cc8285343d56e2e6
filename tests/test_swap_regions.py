"""Several subjects in one photo, each swapped in a region of its own; selections in swap, sweep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pictures
from test_concept import concept_for
from tiny import tiny_folder, tiny_model
from understudy.errors import InputError
from understudy.jobs.events import Note, Result
from understudy.jobs.request import Job
from understudy.jobs.runner import run
from understudy.pictures.photo import Pixels, read_photo
from understudy.pictures.recipe import read_recipe
from understudy.settings import InvertSettings, RunSettings, SwapSettings

SWAPS = ["cat=rex", "dog=mia"]
SQUARE = "40,30,100,100"


@pytest.fixture
def photo(here: Path) -> Path:
    """Larger than what the tiny model draws; two concepts are beside it."""
    model = tiny_model("toy")
    model.name = str(tiny_folder("toy"))
    for number, (name, word, noun) in enumerate([("rex", "sks", "cat"), ("mia", "zwx", "dog")]):
        concept = concept_for(model, name, number)
        replace(concept, identifier=word, class_noun=noun).save(here / "concepts" / name)
    return pictures.save(here / "photo.png", pictures.gradient(140, 220))


def made(verb: str, out: str, **inputs: Any) -> tuple[Pixels, list[str]]:
    """What a job writes, and its notes."""
    job = Job.of(
        verb,
        SwapSettings(steps=2, budget=0, features=0.0, self_output_steps=1, self_map_steps=1),
        RunSettings(model=str(tiny_folder("toy")), device="cpu"),
        InvertSettings(steps=2, method="direct"),
        prompt="a photo of cat and dog",
        out=Path(out),
        **inputs,
    )
    events = list(run(job))
    assert isinstance(events[-1], Result)
    return read_photo(out).pixels, [one.text for one in events if isinstance(one, Note)]


@pytest.mark.slow
def test_each_swap_has_a_region_of_its_own(photo: Path) -> None:
    """Equal to one swap after the other, the second in the picture that the first wrote."""
    both, notes = made("swap", "both.png", photo=photo, swap=SWAPS, region="each")
    first, _ = made("swap", "first.png", photo=photo, swap=SWAPS[:1])
    second, _ = made("swap", "second.png", photo=Path("first.png"), swap=SWAPS[1:])
    assert np.array_equal(both, second)
    assert not np.array_equal(first, second)
    assert len([note for note in notes if "editing the region" in note]) >= 1
    recipe = read_recipe("both.png")
    assert recipe.arguments["target_prompt"] == "a photo of sks cat and zwx dog"
    assert recipe.job["inputs"]["region"] == "each"


def test_each_refuses_what_it_cannot_take(photo: Path) -> None:
    with pytest.raises(InputError, match="--region each is for the swaps of a photo"):
        made("swap", "a.png", seed=3, swap=SWAPS, region="each")
    with pytest.raises(InputError, match="must be a swapped word: cat, dog. Got '1,2'"):
        made("swap", "a.png", photo=photo, swap=SWAPS, region="each", select=["1,2"])


@pytest.mark.parametrize("verb", ["swap", "sweep"])
def test_a_selection_goes_from_the_option_to_the_picture(photo: Path, verb: str) -> None:
    more: dict[str, Any] = {"vary": ["cross-map=0,1"]} if verb == "sweep" else {}
    picture, notes = made(verb, "out.png", photo=photo, swap=SWAPS[:1], select=[SQUARE], **more)
    before = read_photo(photo).pixels
    assert any("editing the region" in note for note in notes)
    assert read_recipe("out.png").job["inputs"]["select"] == [SQUARE]
    if verb == "swap":
        assert np.array_equal(picture[:, 190:], before[:, 190:])
        assert not np.array_equal(picture, before)
