"""Looks: same pictures for equal seeds, a loss on fixed noise, alarms, the choice, the journal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from test_learn import photos, same
from tiny import tiny_model
from understudy.errors import InputError
from understudy.learn import LearnStep, Subject, learn_steps
from understudy.learn.log import Log, read_log
from understudy.learn.preview import Preview, PreviewPictures, PreviewScores, alarms, best
from understudy.pictures.photo import read_photo
from understudy.pictures.sheet import Curve, chart
from understudy.settings import LearnSettings


def watched(tmp_path: Path, scorer: Any = None, **knobs: Any) -> list[LearnStep]:
    model = tiny_model()
    given = {"steps": 4, "learning_rate": 1e-3, "prior_samples": 2, "prior_steps": 2, **knobs}
    settings = LearnSettings.filled({"preview_every": 2, "method": "lora", **given})
    subject = Subject("rex", "cat", photos(), "sks")
    return list(learn_steps(model, subject, settings=settings, run=tmp_path, scorer=scorer))


def preview(step: int, validation: float = 1.0, **scores: float) -> Preview:
    return Preview(step, torch.zeros(0, 3, 1, 1), (), validation, math.nan, PreviewScores(**scores))


def test_looking_changes_nothing_and_leaves_pictures_numbers_and_a_plot(tmp_path: Path) -> None:
    seen: list[PreviewPictures] = []

    def scorer(what: PreviewPictures) -> PreviewScores:
        seen.append(what)
        return PreviewScores(identity=0.1 * len(seen), prompt=0.5, copy=0.0, drift=0.0)

    steps = watched(tmp_path, scorer)
    plain = watched(tmp_path / "plain", preview_every=0)
    assert steps[-1].concept and plain[-1].concept
    assert same(dict(steps[-1].concept.tensors), dict(plain[-1].concept.tensors))
    assert [step.preview.step for step in steps if step.phase == "learn" and step.preview] == [2, 4]
    assert steps[-1].preview is not None and steps[-1].preview.step == 4
    assert len(seen) == 3 and seen[0].subject.shape == seen[0].plain.shape == (4, 3, 32, 32)
    assert "sks" not in seen[0].prompts[0] and "cat" in seen[0].prompts[0]
    assert not torch.equal(seen[0].subject, seen[2].subject)
    names = sorted(path.name for path in (tmp_path / "previews").iterdir())
    assert names == ["step-000000.png", "step-000002.png", "step-000004.png"]
    assert read_photo(tmp_path / "learn.png").size[1] == 760
    lines = read_log(tmp_path / "learn.jsonl")
    assert [line["step"] for line in lines] == [0, 1, 2, 2, 3, 4, 4]
    assert lines[3]["identity"] == pytest.approx(0.2) and lines[3]["alarms"] == []
    assert [one.scores.identity for one in Log(tmp_path, since=2).previews()] == [0.1, 0.2]
    assert [line["step"] for line in read_log(tmp_path / "learn.jsonl")] == [0, 1, 2, 2]


def test_the_validation_loss_is_on_the_same_noise_at_every_look(tmp_path: Path) -> None:
    steps = watched(tmp_path, learning_rate=0.0, weight_decay=0.0)
    values = [step.preview.validation for step in steps if step.preview]
    assert len(set(values)) == 1 and values[0] > 0
    losses = [step.loss for step in steps if step.phase == "learn"]
    assert len(set(losses)) == 4


def test_the_best_look_has_no_alarm_and_both_scores() -> None:
    start = preview(0, identity=0.3, prompt=0.9, copy=0.2, drift=0.3)
    good = preview(100, identity=0.7, prompt=0.8, copy=0.3, drift=0.35)
    better = preview(200, identity=0.9, prompt=0.9, copy=0.95, drift=0.35)
    drifting = preview(300, identity=0.9, prompt=0.9, copy=0.3, drift=0.7)
    forgetful = preview(400, identity=0.95, prompt=0.1, copy=0.3, drift=0.3)
    assert not alarms(good, start) and not alarms(start, start)
    assert "copies" in alarms(better, start)[0] and "class" in alarms(drifting, start)[0]
    assert best([start, good, better, drifting, forgetful]) is good
    assert best([start, better]) is better  # only alarms: the best of these
    assert best([preview(0, 1.0), preview(1, 0.5), preview(2, 0.7)]).step == 1  # nobody judged
    assert best([start]) is start


def test_a_chart_draws_its_curves_where_they_are() -> None:
    page = chart([[Curve("up", [(0, 0.0), (10, 1.0)])], [Curve("one", [(5, 2.0)])]], along="step")
    blue = (page == (31, 98, 163)).all(axis=2)
    rows, columns = blue[:220, 200:].nonzero()
    assert rows[columns.argmin()] > rows[columns.argmax()] + 50  # up is up
    with pytest.raises(InputError, match="point"):
        chart([[]])
