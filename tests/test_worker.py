"""jobs/worker: the same events from a process of its own; cancelled, killed, resumed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import pictures
from tiny import tiny_folder
from understudy.concept import Concept
from understudy.errors import ConceptError, ExtraMissing, InputError
from understudy.jobs.events import Note, Progress, Result
from understudy.jobs.request import Job
from understudy.jobs.runner import run
from understudy.jobs.worker import Worker, placed, raised, resumed
from understudy.pictures.photo import read_photo


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    one = Worker(device="cpu")
    yield one
    one.close()


def drawing(out: str, steps: int = 2) -> Job:
    settings = {"generate": {"steps": steps}, "run": {"model": str(tiny_folder("toy"))}}
    return Job(verb="generate", settings=settings, inputs={"prompt": "a cat", "out": out}, seed=3)


def test_a_worker_gives_the_events_and_pictures_of_a_run_here(here: Path, worker: Worker) -> None:
    there = list(worker.run(drawing("there.png")))
    ours = list(run(placed(drawing("ours.png"), "cpu")))
    assert [type(event) for event in there] == [type(event) for event in ours]
    assert isinstance(there[-1], Result) and there[-1].files == ("there.png",)
    assert np.array_equal(read_photo("there.png").pixels, read_photo("ours.png").pixels)


def test_every_verb_is_told_its_device_where_it_reads_it() -> None:
    model, generator = placed(Job(verb="swap"), "cuda:0"), placed(Job(verb="drag"), "cuda:0")
    assert model.settings["run"] == {"device": "cuda:0"} and not model.inputs
    assert generator.inputs == {"device": "cuda:0"} and not generator.settings
    assert placed(Job(verb="convert"), "cuda:0") == Job(verb="convert")
    own = Job(verb="drag", inputs={"device": "cuda:1"})
    assert placed(own, "cuda:0") == own and placed(Job(verb="swap"), "auto") == Job(verb="swap")


def test_errors_cross_over_and_the_worker_lives_on(here: Path, worker: Worker) -> None:
    with pytest.raises(InputError, match="needs 'prompt'"):
        list(worker.run(Job(verb="generate")))
    before = worker.pid
    assert before is not None
    with pytest.raises(ConceptError, match="no concept 'nobody'"):
        wish = drawing("o.png")
        list(worker.run(Job(**{**vars(wish), "inputs": {**wish.inputs, "concept": ["nobody"]}})))
    assert worker.pid == before
    assert isinstance(raised("ExtraMissing", "install it"), ExtraMissing)
    assert str(raised("ZeroDivisionError", "by zero")) == "ZeroDivisionError: by zero"


def test_closing_cancels_between_steps(here: Path, worker: Worker) -> None:
    events = worker.run(drawing("never.png", steps=900))
    assert isinstance(next(events), Progress)
    before = worker.pid
    with pytest.raises(RuntimeError, match="busy"):
        next(worker.run(drawing("other.png")))
    events.close()  # pyright: ignore
    assert not Path("never.png").exists()
    assert isinstance(list(worker.run(drawing("next.png")))[-1], Result) and worker.pid == before


def learning(out: str) -> Job:
    settings = {
        "learn": {"steps": 6, "prior_samples": 1, "prior_steps": 2, "save_every": 1},
        "run": {"model": str(tiny_folder("toy")), "device": "cpu"},
    }
    inputs = {"photos": "photos", "name": "rex", "class_noun": "cat", "out": out}
    return Job(verb="learn", settings=settings, inputs=inputs)


def test_a_killed_workers_job_continues_from_its_checkpoint(here: Path, worker: Worker) -> None:
    for number, level in enumerate((60, 180)):
        pictures.save(here / f"photos/{number}.png", np.full((70, 64, 3), level, np.uint8))
    killed = False
    again = resumed(learning("killed"))
    assert not again.inputs["resume"]  # nothing is kept yet
    seen: list[object] = []
    for event in worker.run(learning("killed")):
        seen.append(event)
        kept = list(Path("killed/checkpoints").glob("step-*"))
        if not killed and len(kept) >= 2 and worker.pid is not None:
            os.kill(worker.pid, signal.SIGKILL)
            killed = True
    assert Note(f"the worker process died (exit code {-signal.SIGKILL}).") in seen
    assert isinstance(seen[-1], Result)
    list(run(learning("unbroken")))
    ours, theirs = Concept.load(Path("killed")), Concept.load(Path("unbroken"))
    assert ours.tensors.keys() == theirs.tensors.keys()
    assert all(bool((ours.tensors[key] == theirs.tensors[key]).all()) for key in ours.tensors)
