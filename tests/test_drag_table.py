"""DragGAN's Table 1 as a protocol: rows that resume, the same pairs for all methods, a report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from test_stylegan2 import small
from understudy.errors import InputError, OutputError
from understudy.evaluate.gan_scores import drawn_pictures, path_lengths, trunk_features
from understudy.evaluate.landmarks import FinderNetwork, LandmarkFinder, Landmarks
from understudy.evaluate.perceptual import RecogniserFeatures
from understudy.evaluate.protocols.drag import METHODS, evaluation_steps, summed
from understudy.evaluate.recogniser import load
from understudy.evaluate.rows import Row, Run, read_rows
from understudy.photo import read_photo
from understudy.settings_evaluate import DragTableSettings

NAMES = tuple("abcd")


class Colours(LandmarkFinder):
    """Three points by the picture's mean colours, and one that is never seen."""

    def __init__(self) -> None:
        super().__init__(FinderNetwork(NAMES, width=4))

    def find(self, pictures: Tensor, *, batch: int = 64) -> Landmarks:
        means = pictures.mean(dim=(2, 3)).clamp(-1, 1)
        places = torch.stack([16 + 8 * means, 30 + 12 * means.roll(1, 1)], dim=2)
        points = torch.cat([places, places[:, :1]], dim=1)
        points = points + 8.0 * torch.arange(len(pictures))[:, None, None]  # the second: far
        visible = torch.tensor([1.0, 1.0, 1.0, 0.0]).expand(len(pictures), -1)
        return Landmarks(NAMES, points, visible)


def run(folder: Path, methods: list[str], points: str = "1,all", **how: bool) -> list[Row]:
    wish = DragTableSettings(pairs=2, points=points, steps=2)
    steps = evaluation_steps(Run(folder), wish, small(), Colours(), methods, **how)
    return [step.row for step in steps]


def test_every_method_drags_the_same_points(tmp_path: Path) -> None:
    rows = run(tmp_path, list(METHODS))
    assert len(rows) == 2 * 2 * len(METHODS) and not any("error" in row for row in rows)
    assert {row["points"] for row in rows} == {1, 3}
    still = [row for row in rows if row["method"] == "no-edit"]
    assert all(row["distance"] > 0 and row["drag_seconds"] == 0 for row in still)
    for row in still:
        picture, before = (read_photo(tmp_path / row[k]).pixels for k in ("picture", "before"))
        assert np.array_equal(picture, before)
    far = {row["case"]: row["distance"] for row in still}
    for row in rows:
        if row["method"] != "no-edit":
            assert row["steps"] == 2 and row["stop"] == "cap"
        if row["method"] == "no-tracking":  # handles are believed to be where they were
            assert row["left"] == pytest.approx(far[row["case"]], abs=1e-4)


def test_rows_are_kept_and_joined(tmp_path: Path) -> None:
    run(tmp_path, ["no-edit"])
    with pytest.raises(OutputError, match="--resume"):
        run(tmp_path, ["no-edit"])
    run(tmp_path, ["no-edit", "best"], resume=True)
    rows = read_rows(Run(tmp_path).rows)
    assert [row["method"] for row in rows].count("no-edit") == 4 and len(rows) == 8
    report = summed(Run(tmp_path), load())
    assert [table.title for table in report.tables] == ["1 point", "all points"]
    lines = {line[0]: line for line in report.tables[0].lines}
    assert float(lines["no-edit"][2]) == pytest.approx(0, abs=1e-3)  # FID to itself
    assert float(lines["best"][2]) > 0 and lines["best"][-1] == "0 of 2"
    assert len(report.rows) == 8 and report.sheets


def test_pairs_without_landmarks_are_counted_not_measured(tmp_path: Path) -> None:
    rows = run(tmp_path, ["best"], points="4,1")
    assert ["error" in row for row in rows] == [True, False, True, False]
    assert "3 landmarks are seen" in rows[0]["error"]
    assert "Left out: 2" in summed(Run(tmp_path), load()).intro
    with pytest.raises(InputError, match="--points"):
        run(tmp_path / "other", ["best"], points="many")


def test_scores_of_a_generator() -> None:
    model, ruler = small(), load()
    features = trunk_features(ruler, drawn_pictures(model, range(35)))
    assert features.shape[0] == 35
    torch.testing.assert_close(
        features[32:], trunk_features(ruler, drawn_pictures(model, range(32, 35)))
    )
    lengths = path_lengths(model, RecogniserFeatures(ruler), 5)
    assert lengths.shape == (5,) and bool((lengths > 0).all())
