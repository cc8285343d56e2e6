"""The measurements' own machinery: rows resume, spreads add up, cases are what they say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import pictures
from benchmarks import cases
from benchmarks.rows import Row, Rows, Spread, spreads
from understudy.toybox.sample import is_reserved


def test_a_case_is_measured_once_for_each_model(tmp_path: Path) -> None:
    asked: list[str] = []

    def measure(name: str) -> Row:
        asked.append(name)
        return {"score": float(len(asked))}

    def run(mark: str, names: str) -> list[Row]:
        rows = Rows(tmp_path / "rows.jsonl", mark)
        return rows.measure((name, lambda name=name: measure(name)) for name in names)

    run("one", "ab")
    assert [row["score"] for row in run("one", "abc")] == [1, 2, 3]
    assert asked == ["a", "b", "c"]
    assert [row["score"] for row in run("another", "a")] == [4]


def test_spread_of_three_numbers() -> None:
    spread = Spread.of([1.0, 2.0, 3.0])
    assert (spread.mean, spread.low, spread.high, spread.count) == (2, 1, 3, 3)
    assert spread.error == pytest.approx(1 / math.sqrt(3))
    found = spreads([{"a": 1.0}, {"a": math.nan}, {"b": True}], ["a", "b", "c"])
    assert found["a"].count == 1 and found["b"].mean == 1 and "c" not in found


@pytest.mark.parametrize("number", [0, 3, 12, 29, 62])
def test_a_swap_case_keeps_the_stage(number: int) -> None:
    case, kind = cases.swap(number), cases.KINDS[number % 8]
    old, new = case.source.subjects[0], case.right.subjects[0]
    assert case.kind == kind and case.source.background == case.right.background
    assert (old.pose.x, old.pose.yaw) == (new.pose.x, new.pose.yaw)
    assert new.identity == case.subject.identity and is_reserved(new.identity)
    words, nouns = case.prompt.split(), (old.identity.class_name, new.identity.class_name)
    assert nouns[0] in words and (case.occurrence is not None) == (words.count(nouns[0]) > 1)
    assert (nouns[0] == nouns[1]) == (kind in ("own", "occluded", "several"))
    assert kind not in ("alike", "shape") or cases.alike(*nouns) == (kind == "alike")
    assert len(case.source.subjects) == 1 + (kind == "several")
    assert case.source.subjects[1:] == case.right.subjects[1:]
    assert 0.03 < case.changed.mean() < 0.6


def test_a_telling_caption_names_what_is_asked() -> None:
    for number in range(20):
        scene = cases.scene(number)
        toy = scene.subjects[0].identity
        text = cases.telling_caption(scene, number)
        assert f"{toy.primary} {toy.class_name}" in text


def test_every_way_of_learning_has_settings() -> None:
    from benchmarks.learn import WAYS, settings_of

    for way in WAYS:
        settings = settings_of(way, {"learning_rate": "0.5", "flip": "false"}, "toybox")
        assert settings.learning_rate == 0.5 and not settings.flip
    assert settings_of("HiPer, N = 20", {}, "toybox").tail == 20
    assert settings_of("DreamBooth, no prior", {}, "toybox").prior_weight == 0


def test_a_photo_there_and_back(tmp_path: Path) -> None:
    from benchmarks.projection import cases as photo_cases
    from benchmarks.projection import settings_of
    from tests.test_project import Colours, tiny

    pictures.save(tmp_path / "a.png", pictures.gradient(40, 40))
    settings = settings_of(["steps=2", "tune_steps=30", "tune_rate=0.003", "samples=8"])
    rows = Rows(tmp_path / "rows.jsonl", "mark")
    (row,) = rows.measure(photo_cases(tiny(), Colours(), settings, tmp_path, None))
    assert row["case"] == "a.png" and row["tuned, dB"] > row["projected, dB"] + 1
