"""The main job: what is asked, what is scored, what is shown; and all of it on a tiny model."""

from __future__ import annotations

import math

import pytest
import torch

from recognisers import untaught
from tiny import tiny_model
from understudy import demo
from understudy.jobs.events import Finished
from understudy.settings import DemoSettings


def test_a_case_is_a_question_with_its_answer() -> None:
    given = demo.case(3, photos=2)
    toys = {scene.subjects[0].identity for scene in given.photos}
    (toy,) = toys  # one toy in all photos
    assert given.right.subjects[0].identity == toy != given.source.subjects[0].identity
    assert given.right.subjects[0].pose == given.source.subjects[0].pose
    assert given.right.background == given.source.background
    assert given.noun in given.prompt
    assert demo.case(3, photos=2) == given != demo.case(4, photos=2)


@pytest.fixture(scope="module")
def made() -> demo.DemoPictures:
    settings = DemoSettings(photos=2, learn_steps=2, prior_samples=1, steps=2)
    model = tiny_model("toy")
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    titles, steps = list[str](), demo.run_case(model, demo.case(0, settings.photos), settings)
    while True:
        try:
            event = next(steps)
        except StopIteration as end:
            made = end.value
            break
        if isinstance(event, Finished):
            titles.append(event.phase)
    after = model.unet.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert [title.split()[0] for title in titles] == [
        "Learning",
        "Inverting",
        "Swapping",
        "Prompt-to-prompt,",
    ]
    return made


def test_the_job_on_a_tiny_model(made: demo.DemoPictures) -> None:
    for picture in (made.source, made.swapped, made.reworded, made.right, made.rebuilt):
        assert picture.shape == (1, 3, 64, 64) and picture.isfinite().all()
        assert not picture.requires_grad
    assert made.case.prompt != made.target_prompt and "{" not in made.target_prompt


def test_scores_and_sheet(made: demo.DemoPictures) -> None:
    scores = {row.name: row for row in demo.score(made, untaught())}
    assert list(scores) == [
        "swap",
        "prompt-to-prompt",
        "right answer",
        "no swap",
        "autoencoder alone",
    ]
    assert scores["no swap"].background == math.inf
    assert scores["right answer"].background > 30  # it differs only where it may
    assert scores["right answer"].identity <= 1
    table = demo.table(list(scores.values()))
    assert len(table.splitlines()) == 6 and "nan" not in table
    sheet = demo.sheet(made, list(scores.values()))
    assert sheet.shape[1] > 4 * 192
