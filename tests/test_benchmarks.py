"""The measurements' own machinery: rows resume, spreads add up, cases are what they say."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path

import numpy as np
import pytest

import pictures
from benchmarks import cases
from benchmarks.rows import Row, Rows, Spread, keep_sheet, spreads
from understudy.pictures import photo

ROOT = Path(__file__).parent.parent
SCRIPTS = [file for folder in ("benchmarks", "training") for file in (ROOT / folder).glob("*.py")]


@pytest.mark.parametrize("file", sorted(SCRIPTS), ids=lambda file: file.stem)
def test_every_script_finds_what_it_imports(file: Path) -> None:
    importlib.import_module(f"{file.parent.name}.{file.stem}")


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


def test_a_telling_caption_names_what_is_asked() -> None:
    for number in range(20):
        scene = cases.scene(number)
        toy = scene.subjects[0].identity
        text = cases.telling_caption(scene, number)
        assert f"{toy.primary} {toy.class_name}" in text


def test_sheets_are_kept_small(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    keep_sheet(tmp_path / "a.jpg", noise, most=100_000)
    keep_sheet(tmp_path / "b.jpg", noise // 16, most=1_000_000)
    small, whole = (photo.read_photo(tmp_path / name).pixels for name in ("a.jpg", "b.jpg"))
    assert (tmp_path / "a.jpg").stat().st_size <= 100_000 and whole.shape == (600, 800, 3)
    assert small.shape[0] < 600 and small.shape[1] / small.shape[0] == pytest.approx(4 / 3, 0.01)


def test_speeds_are_kept_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import learn_speed

    monkeypatch.setattr(learn_speed, "RESULTS", tmp_path)
    where = {"what": "lora", "side": 64, "width": 0.5, "device": "cpu", "threads": 1, "steps": 3}
    slow, quick = ({"step": s, "prepare": 1.0, "memory": 2.0} for s in (3.0, 2.0))
    learn_speed.kept(where, quick, quick)
    learn_speed.kept({**where, "what": "full"}, slow, quick)
    text = learn_speed.kept(where, slow, quick)  # again, in the first one's place
    known = json.loads((tmp_path / "learn_speed.json").read_text())
    assert [(row["what"], row["quicker"]) for row in known] == [("full", 1.5), ("lora", 1.5)]
    assert text.count("1.50x") == 2 and text == (tmp_path / "learn_speed.md").read_text()


def test_all_speeds_are_gathered_on_one_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import speed

    monkeypatch.setattr(speed, "RESULTS", tmp_path)
    cost = {"step": 3.0, "memory": 4.0}
    learnt = {"what": "lora", "side": 64, "width": 0.5, "device": "cpu", "plain": cost,
              "ours": {"step": 2.0, "memory": 2.0}, "quicker": 1.5}  # fmt: skip
    (tmp_path / "learn_speed.json").write_text(json.dumps([learnt]))
    said = {"side": 32, "steps": 4, "shape": "half", "device": "cpu", "presets": ["paper"]}
    part = {"later swap": 5.0, "sum": 2.5, "highest": 7.0}
    swapped = {"conditions": said, "plain over ours": {"paper, time": part, "paper, peak": part}}
    (tmp_path / "swap_time_32_cpu.json").write_text(json.dumps(swapped))
    row = {"case": "1 point", "times quicker": 2.2, "times less memory": 4.4,
           "region, times quicker than the map": 11.0}  # fmt: skip
    said = {"picture": 512, "steps": 5, "device": "cpu"}
    (tmp_path / "drag.json").write_text(json.dumps({"conditions": said, "rows": [row]}))
    found = list(speed.collected(tmp_path))
    assert [(one.time, one.memory) for one in found] == [
        (1.5, 2.0), (2.5, 7.0), (5.0, 5.0), (2.2, 4.4), (11.0, 0),
    ]  # fmt: skip
    text = speed.summary(found, speed.machine())
    assert text == (tmp_path / "speed.md").read_text() and "processor" in text
    assert text.count("2.50x") == 1 and text.count("1 point") == 2


def test_a_photo_there_and_back(tmp_path: Path) -> None:
    from benchmarks.projection import cases as photo_cases
    from benchmarks.projection import settings_of
    from tests.test_project import Colours, tiny

    pictures.save(tmp_path / "a.png", pictures.gradient(40, 40))
    settings = settings_of(["steps=2", "tune_steps=30", "tune_rate=0.003", "samples=8"])
    rows = Rows(tmp_path / "rows.jsonl", "mark")
    (row,) = rows.measure(photo_cases(tiny(), Colours(), settings, tmp_path, None))
    assert row["case"] == "a.png" and row["tuned, dB"] > row["projected, dB"] + 1
