"""jobs/: a job and its events are JSON; inputs are checked; models are lent; closing cancels."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pictures
from tiny import tiny_folder
from understudy.errors import InputError, UnderstudyError
from understudy.jobs.events import Finished, Note, Progress, Result, from_dict, to_dict, watched
from understudy.jobs.pool import Pool
from understudy.jobs.request import Job, bound, path_inputs
from understudy.jobs.runner import VERBS, previewed, run, verb_function
from understudy.pictures.photo import read_photo
from understudy.settings import GenerateSettings, RunSettings
from understudy.settings.drag import DragSettings


@pytest.fixture
def job() -> Job:
    """Two tiny pictures of a prompt."""
    run_on = RunSettings(model=str(tiny_folder("toy")), device="cpu")
    how = GenerateSettings(steps=2)
    return Job.of("generate", how, run_on, prompt="a cat", out=Path("made"), count=2, seed=3)


def test_jobs_and_events_survive_json(job: Job) -> None:
    assert Job.from_json(job.to_json()) == job
    assert job.inputs == {"prompt": "a cat", "out": "made", "count": 2} and job.seed == 3
    events = (Note("n"), Progress("p", 0, 2, 1.5), Finished("p", 2.0), Result({"a": 1}, ("b",)))
    for event in events:
        assert from_dict(json.loads(json.dumps(to_dict(event)))) == event


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "must be a JSON object"),
        ('{"verb": "swap"}', "format 1"),
        ('{"format": 1}', "name its verb"),
        ('{"format": 1, "verb": "swap", "colour": 3}', "no 'colour'"),
        ('{"format": 1, "verb": "swap", "seed": true}', "seed has the wrong kind"),
        ('{"format": 1, "verb": "swap", "settings": {"swap": 3}}', "groups of values"),
        ('{"event": "nothing"}', "format 1"),
    ],
)
def test_other_jobs_are_refused_in_one_line(text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        Job.from_json(text)
    with pytest.raises(InputError):
        from_dict({"event": text})


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({}, "needs 'prompt'"),
        ({"prompt": 3}, "prompt has the wrong kind"),
        ({"prompt": "a", "count": True}, "count has the wrong kind"),
        ({"prompt": "a", "concept": "rex"}, "concept has the wrong kind"),
        ({"prompt": "a", "mask": "m.png"}, "has no 'mask'"),
    ],
)
def test_inputs_are_checked_by_name(inputs: dict, told: str) -> None:
    wish = Job(verb="generate", inputs={"out": "x", **inputs})
    with pytest.raises(InputError, match=told):
        list(run(wish))


def test_settings_of_a_job_are_resolved_for_its_model() -> None:
    wish = Job(verb="generate", settings={"generate": {"steps": 3}}, inputs={"prompt": "a"})
    found = bound(
        verb_function("generate"), Job(**{**vars(wish), "inputs": {**wish.inputs, "out": "o"}})
    )
    assert (found["settings"].steps, found["settings"].guidance) == (3, 5.0)  # toybox
    assert found["run"] == RunSettings() and found["given"].out == Path("o")
    with pytest.raises(InputError, match="verb must be one of"):
        list(run(Job(verb="paint")))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_declares_its_inputs(verb: str) -> None:
    function = verb_function(verb)
    assert "out" in path_inputs(function) and function.__doc__


def test_a_run_reports_and_keeps_its_model(job: Job, here: Path) -> None:
    pool = Pool()
    events = list(run(job, pool))
    progress = [event for event in events if isinstance(event, Progress)]
    assert [(p.index, p.total) for p in progress] == [(0, 2), (1, 2)]
    assert isinstance(events[-1], Result) and isinstance(events[-2], Finished)
    assert events[-1].files == ("made/seed-0003.png", "made/seed-0004.png")
    assert all(Path(file).is_file() for file in events[-1].files)
    (key,) = pool.idle
    with pool.model(RunSettings(model=key[0], device="cpu", dtype="float32")) as first:
        with pool.model(RunSettings(model=key[0], device="cpu", dtype="float32")) as second:
            assert first is not second  # lent to one job at a time
        assert pool.idle == (key,)


def test_a_model_whose_weights_changed_is_not_kept() -> None:
    pool, asked = Pool(), RunSettings(model=str(tiny_folder("toy")), device="cpu")
    with pool.model(asked) as model:
        weight = next(model.unet.parameters())  # pyright: ignore
        with torch.no_grad():
            weight.add_(1)
    assert pool.idle == ()
    with pytest.raises(ZeroDivisionError), pool.model(asked):
        raise ZeroDivisionError
    assert pool.idle == ()


def test_closing_cancels_and_writes_nothing(job: Job, here: Path) -> None:
    pool = Pool()
    events = run(job, pool)
    assert isinstance(next(events), Progress)
    events.close()  # pyright: ignore
    assert not Path("made").exists() and len(pool.idle) == 1


def test_notes_come_before_the_error_they_explain(here: Path) -> None:
    photo = pictures.save(here / "photo.png", pictures.gradient(80, 90))
    inputs = {"photo": str(photo), "prompt": "two cats", "swap": ["cat=nobody"], "out": "o.png"}
    seen: list[object] = []
    with pytest.raises(UnderstudyError, match="no concept 'nobody'"):
        seen.extend(run(Job(verb="swap", inputs=inputs)))
    events = run(Job(verb="swap", inputs=inputs))
    assert next(events) == Note('"cat" is read as "cats" in the prompt "two cats".')


@dataclass(frozen=True)
class Step:
    index: int
    total: int


def test_watched_closes_what_it_watches() -> None:
    closed: list[bool] = []

    def steps() -> Iterator[Step]:
        try:
            for index in range(3):
                yield Step(index, 3)
        finally:
            closed.append(True)

    events = watched(steps(), "Testing")
    assert next(events) == Progress("Testing", 0, 3, None)
    events.close()
    assert closed == [True]


def test_previews_come_at_their_interval_and_change_no_pixel(job: Job, here: Path) -> None:
    longer = Job(**{**vars(job), "settings": {**job.settings, "generate": {"steps": 5}}})
    plain = list(run(longer))
    before = [(here / "made" / f"seed-000{n}.png").read_bytes() for n in (3, 4)]
    shown = [e for e in run(longer, preview_every=2) if isinstance(e, Progress)]
    assert [bool(event.preview) for event in shown] == [False, True, False, True, True]
    assert not any(isinstance(e, Progress) and e.preview for e in plain)
    picture = Image.open(io.BytesIO(base64.b64decode(shown[1].preview)))
    assert picture.format == "JPEG" and picture.width == 2 * picture.height  # two side by side
    pixels = [read_photo(here / "made" / f"seed-000{n}.png").pixels for n in (3, 4)]
    for data, now in zip(before, pixels, strict=True):
        assert (np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) == now).all()
    assert from_dict(json.loads(json.dumps(to_dict(shown[1])))) == shown[1]


def test_a_preview_that_cannot_be_drawn_is_left_out() -> None:
    def full() -> torch.Tensor:
        raise RuntimeError("out of memory")

    event = previewed(Progress("p", 0, 1, draw=full), 1)
    assert event == Progress("p", 0, 1)


def test_generators_are_lent_from_the_pool_unchanged(here: Path) -> None:
    pool = Pool(most=1)
    with pool.generator("toybox-gan", "cpu") as first:
        before = {name: value.clone() for name, value in first.state_dict().items()}
    drag = Job.of("drag", DragSettings(steps=1), generator="toybox-gan", points="74,80>70,80",
                  out=here / "a.png", device="cpu", seed=3)  # fmt: skip
    list(run(drag, pool))
    assert pool.idle == (("toybox-gan", "cpu", "float32"),)
    with pool.generator("toybox-gan", "cpu") as again:
        assert again is first
        assert all(torch.equal(before[name], value) for name, value in again.state_dict().items())
    on = RunSettings(model=str(tiny_folder("toy")))
    list(
        run(Job.of("generate", GenerateSettings(steps=1), on, prompt="a", out=here / "b.png"), pool)
    )
    assert len(pool.idle) == 1 and pool.idle[0][0] != "toybox-gan"
