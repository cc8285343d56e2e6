"""Runs that survive: resuming bit for bit, kills, full disks, two runs in one folder."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from apart import printed
from test_learn import assert_no_trace, photos, same, weights
from tiny import tiny_model
from understudy.concept import Concept, applied
from understudy.errors import ConceptError, OutputError, UnderstudyError
from understudy.learn import LearnStep, Subject, learn_steps
from understudy.learn.checkpoint import claimed, read_checkpoint
from understudy.learn.log import read_log
from understudy.models.unet.stable_diffusion import StableDiffusion
from understudy.settings import LearnSettings

QUICK: dict[str, Any] = {
    "method": "lora", "steps": 6, "learning_rate": 1e-3, "prior_samples": 2, "prior_steps": 1,
    "save_every": 2, "rank": 2, "targets": "to_q", "train_text_encoder": False,
}  # fmt: skip
SAVE = "understudy.files.tensors.save_file"
WRITES = [  # a checkpoint's five: weights, concept.json, state, state.json, the rename
    (SAVE, 1), ("pathlib.Path.write_text", 1), (SAVE, 2), ("pathlib.Path.write_text", 2),
    ("os.rename", 1),
]  # fmt: skip


def steps_of(model: StableDiffusion, run: Path | None, resume: bool = False, **knobs: Any) -> Any:
    size = model.picture_size[0]
    settings = LearnSettings.filled({**QUICK, **knobs})
    subject = Subject("rex", "cat", photos(2, size), "sks")
    return learn_steps(model, subject, settings=settings, run=run, resume=resume)


def finished(model: StableDiffusion, run: Path | None, **how: Any) -> Concept:
    *_, last = steps_of(model, run, **how)
    assert last.concept is not None
    return last.concept


def stopped_after(model: StableDiffusion, run: Path, count: int, **knobs: Any) -> LearnStep:
    steps = steps_of(model, run, **knobs)
    for step in steps:
        if step.phase == "learn" and step.index + 1 == count:
            steps.close()
            return step
    raise AssertionError("the run ended before")


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def states(run: Path) -> list[str]:
    return sorted(path.parent.name for path in run.glob("checkpoints/*/state.safetensors"))


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {
            "method": "dreambooth",
            "average": 0.9,
            "precision": "bfloat16",
            "train_text_encoder": True,
        },
        {"method": "textual-inversion", "varied_prompts": True},
        {"method": "hiper"},
        {"precision": "float16"},
    ],
    ids=lambda knobs: "-".join(map(str, knobs.values())) or "lora",
)
def test_a_resumed_run_ends_bit_for_bit_as_an_unbroken_one(
    tmp_path: Path, knobs: dict[str, Any]
) -> None:
    model = tiny_model()
    before = weights(model)
    whole = finished(model, None, **knobs)
    stopped_after(model, tmp_path, 3, **knobs)
    assert_no_trace(model, before)
    assert checkpoints(tmp_path) == ["step-000002", "step-000003"]
    resumed = finished(model, tmp_path, resume=True, **knobs)
    assert same(dict(resumed.tensors), dict(whole.tensors))
    assert checkpoints(tmp_path) == ["step-000004", "step-000006"]
    lines = [line["step"] for line in read_log(tmp_path / "learn.jsonl")]
    assert lines == [1, 2, 3, 4, 5, 6]
    assert same(dict(finished(model, tmp_path, resume=True, **knobs).tensors), dict(whole.tensors))


def test_every_checkpoint_is_a_concept(tmp_path: Path) -> None:
    model = tiny_model()
    stopped_after(model, tmp_path, 5, keep_checkpoints=9)
    assert states(tmp_path) == ["step-000004", "step-000005"], "one in case of damage"
    whole = finished(model, tmp_path, keep_checkpoints=9, resume=True)
    assert len(checkpoints(tmp_path)) == 4
    assert states(tmp_path) == ["step-000006"], "moments are large: only what may go on has them"
    for folder in (tmp_path / "checkpoints").iterdir():
        concept = Concept.load(folder)
        assert concept.phrase == "sks cat"
        with applied(model, concept):
            assert model.fingerprint != model.base_fingerprint
    assert same(dict(concept.tensors), dict(whole.tensors)) or folder.name != "step-000006"


def test_a_missing_checkpoint_is_an_error_and_so_is_another_run(tmp_path: Path) -> None:
    model = tiny_model()
    with pytest.raises(ConceptError, match="there is no checkpoint"):
        finished(model, tmp_path, resume=True)
    stopped_after(model, tmp_path, 2)
    with pytest.raises(ConceptError, match=r"learning_rate 0.001, now it is 0.002"):
        finished(model, tmp_path, resume=True, learning_rate=2e-3)
    with pytest.raises(ConceptError, match="method 'lora', now it is 'hiper'"):
        finished(model, tmp_path, resume=True, method="hiper", average=0.5)
    with pytest.raises(OutputError, match=r"stopped after step 2 of 6.*--resume"):
        finished(model, tmp_path)
    finished(model, tmp_path, resume=True, steps=8)  # more steps are welcome
    finished(model, tmp_path, steps=2)  # and a finished run gives way to a new one
    assert checkpoints(tmp_path) == ["step-000002"]


@pytest.mark.parametrize("file", ["state.json", "state.safetensors"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, file: str) -> None:
    model = tiny_model()
    stopped_after(model, tmp_path, 2)
    bad = tmp_path / "checkpoints" / "step-000002" / file
    bad.write_bytes(bad.read_bytes()[:9])
    with pytest.raises(ConceptError, match=f"step-000002/{file} (is damaged|cannot be read)"):
        finished(model, tmp_path, resume=True)


@pytest.mark.parametrize("place, write", WRITES)
def test_a_full_disk_leaves_the_last_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, write: int
) -> None:
    """The disk is full at any of the writes of the second checkpoint."""
    model = tiny_model()
    steps = steps_of(model, tmp_path)
    while next(steps).saved is None:
        pass
    real, count = _found(place), [0]

    def full(*given: Any, **named: Any) -> Any:
        count[0] += 1
        if count[0] >= write:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(place, full)
        with pytest.raises(OutputError, match="full"):
            list(steps)
    assert count[0] == write and checkpoints(tmp_path) == ["step-000002"]
    assert not list(tmp_path.rglob("*.partial"))
    resumed = finished(model, tmp_path, resume=True)
    assert same(dict(resumed.tensors), dict(finished(model, None).tensors))


def _found(place: str) -> Any:
    module, _, name = place.rpartition(".")
    if module == "pathlib.Path":
        return Path.write_text
    return getattr(sys.modules[module], name)


def test_out_of_memory_keeps_the_last_step_and_names_three_remedies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    whole = finished(model, None)
    steps = steps_of(model, tmp_path)
    while next(steps).index < 2:
        pass

    def greedy(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    with monkeypatch.context() as patch:
        patch.setattr("understudy.learn.training.row_losses", greedy)
        with pytest.raises(UnderstudyError, match=r"after step 3\. Step 3 is saved in") as told:
            list(steps)
    for remedy in ("--gradient-checkpointing", "--precision bfloat16", "--method lora"):
        assert remedy in str(told.value)
    assert same(dict(finished(model, tmp_path, resume=True).tensors), dict(whole.tensors))


def test_a_loss_that_breaks_down_keeps_the_steps_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    steps = steps_of(model, tmp_path)
    while next(steps).index < 2:
        pass
    monkeypatch.setattr(
        "understudy.learn.training.row_losses",
        lambda _, rows, *__: torch.full((len(rows),), float("nan"), requires_grad=True),
    )
    with pytest.raises(UnderstudyError, match=r"diverged at step 4.*saved in .*step-000003"):
        list(steps)
    assert read_checkpoint(tmp_path / "checkpoints" / "step-000003").step == 3


def test_the_second_run_in_a_folder_is_refused_naming_the_first(tmp_path: Path) -> None:
    with claimed(tmp_path):
        model = tiny_model()
        with pytest.raises(OutputError, match=f"in use by process {os.getpid()} on"):
            finished(model, tmp_path)
        assert model.nfe == 0  # before the class images
    with claimed(tmp_path):
        pass


def test_a_resume_without_checkpoints_is_refused_before_the_class_images(tmp_path: Path) -> None:
    model = tiny_model()
    with pytest.raises(ConceptError, match="no checkpoint"):
        finished(model, tmp_path, resume=True)
    assert model.nfe == 0


def test_leftovers_of_a_kill_are_removed(tmp_path: Path) -> None:
    torn = tmp_path / "checkpoints" / ".0123.partial"
    torn.mkdir(parents=True)
    (torn / "state.json").write_text("{")
    finished(tiny_model(), tmp_path)
    assert not torn.exists()


# Kills


def test_a_few_kills_change_nothing(tmp_path: Path) -> None:
    assert printed("killed_learning.py", str(tmp_path), "6")["kills"] == 6


@pytest.mark.slow
def test_two_hundred_kills_change_nothing(tmp_path: Path) -> None:
    """Prints its counts: pytest -m slow -k two_hundred -s."""
    facts = printed("killed_learning.py", str(tmp_path), "200", seconds=3600)
    print(facts)
    assert facts["kills"] == 200 and facts["while saving"] >= 50
