"""DragGAN's tables as a protocol: rows that resume, the same pairs for all methods, a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from test_stylegan2 import small
from understudy.errors import InputError, OutputError
from understudy.evaluate.gan_scores import drawn_pictures, path_lengths, trunk_features
from understudy.evaluate.protocols.drag import DragMethod, DragStudy, World, evaluation_steps
from understudy.evaluate.protocols.drag_report import summed
from understudy.evaluate.protocols.drag_studies import STUDIES, around
from understudy.evaluate.results import ResultsFolder, Row, read_rows
from understudy.generators.folder import load_generator
from understudy.pictures.photo import read_photo
from understudy.settings.evaluate import DragTableSettings
from understudy.vision.landmarks import FinderNetwork, LandmarkFinder, Landmarks
from understudy.vision.landmarks import load as load_finder
from understudy.vision.perceptual import RecogniserFeatures
from understudy.vision.recogniser import load

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


TABLE = STUDIES["table"]


def run(
    folder: Path,
    methods: list[str],
    points: str = "1,all",
    study: DragStudy = TABLE,
    pairs: int = 2,
    **how: bool,
) -> list[Row]:
    wish = DragTableSettings(pairs=pairs, points=points, steps=2)
    steps = evaluation_steps(ResultsFolder(folder), study, wish, small(), Colours(), methods, **how)
    return [step.row for step in steps]


def test_every_method_drags_the_same_points(tmp_path: Path) -> None:
    rows = run(tmp_path, list(TABLE.methods))
    assert len(rows) == 2 * 2 * len(TABLE.methods) and not any("error" in row for row in rows)
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
    rows = read_rows(ResultsFolder(tmp_path).rows)
    assert [row["method"] for row in rows].count("no-edit") == 4 and len(rows) == 8
    report = summed(ResultsFolder(tmp_path), TABLE, small(), load())
    assert [table.title for table in report.tables] == ["1 point", "all points"]
    lines = {line[0]: line for line in report.tables[0].lines}
    fid = report.tables[0].heads.index("FID ↓")
    assert float(lines["no-edit"][fid]) == pytest.approx(0, abs=1e-3)  # to itself
    to_faces = report.tables[0].heads.index("FID to faces ↓")
    assert all(float(line[to_faces]) > 0 for line in lines.values())  # nobody's own pictures
    assert float(lines["best"][fid]) > 0 and lines["best"][-1] == "0 of 2"
    assert len(report.rows) == 8 and report.sheets


def test_pairs_without_landmarks_are_counted_not_measured(tmp_path: Path) -> None:
    rows = run(tmp_path, ["best"], points="4,1")
    assert ["error" in row for row in rows] == [True, False, True, False]
    assert "3 landmarks are seen" in rows[0]["error"]
    assert "Left out: 2" in summed(ResultsFolder(tmp_path), TABLE, small(), load()).intro
    with pytest.raises(InputError, match="--points"):
        run(tmp_path / "other", ["best"], points="many")


def test_the_rate_of_official_is_ours_where_said(tmp_path: Path) -> None:
    run(tmp_path, ["official", "official-rate", "best"], points="1", pairs=1)
    said = ResultsFolder(tmp_path).read()["methods"]
    rates = [said[name]["learning_rate"] for name in ("official", "official-rate", "best")]
    assert rates[0] != rates[1] == rates[2]
    assert said["official-rate"]["reference"] == said["official"]["reference"] == "current"


def test_features_that_pull_and_those_that_are_followed(tmp_path: Path) -> None:
    known = small().feature_resolutions
    methods = {
        f"{pull} {follow}": DragMethod(
            "", {"feature_resolution": pull, "tracking_resolution": follow}
        )
        for pull in known[-2:]
        for follow in known[-2:]
    }
    study = replace(STUDIES["features"], methods=methods)
    rows = run(tmp_path, list(methods), points="all", study=study, pairs=1)
    assert not any("error" in row for row in rows)
    assert len({row["distance"] for row in rows}) == 4  # each of the two makes a difference
    report = summed(ResultsFolder(tmp_path), study, small(), load())
    assert [line[0] for line in report.tables[0].lines] == list(methods)
    assert set(STUDIES["features"].methods) >= {"supervision 16", "tracking 128"}


def test_a_mask_is_where_the_handle_goes_and_is_judged_outside(tmp_path: Path) -> None:
    mask = around([((20.0, 30.0), (40.0, 30.0))], (128, 128))[0, 0]
    assert mask[30, 10:51].all() and mask[16:45, 30].all()  # 14 pixels about the way
    assert not mask[30, :6].any() and not mask[30, 55:].any() and not mask[46:, :].any()
    rows = run(tmp_path, ["no mask", "mask"], points="1", study=STUDIES["masks"])
    free, held = ({r["case"]: r for r in rows if r["method"] == m} for m in ("no mask", "mask"))
    assert set(free) == set(held) and all(row["outside"] > 0 for row in free.values())
    assert any(held[case]["outside"] != free[case]["outside"] for case in free)


def test_paired_pictures_are_judged_against_the_second(tmp_path: Path) -> None:
    study = STUDIES["paired"]
    rows = run(tmp_path, ["no-edit", "best"], points="all", study=study)
    for row in rows:
        ours, goal = (
            read_photo(tmp_path / row[k]).pixels.astype(float) / 127.5 for k in ("picture", "goal")
        )
        assert row["squared"] == pytest.approx(100 * ((ours - goal) ** 2).mean(), rel=1e-3)
    report = summed(ResultsFolder(tmp_path), study, small(), load())
    assert report.tables[0].heads[1:3] == ["squared error ↓", "perceptual ↓"]
    assert all(row["perceptual"] > 0 for row in report.rows)


def test_an_eye_is_shut_and_the_other_watched(tmp_path: Path) -> None:
    wish = DragTableSettings(study="spaces", pairs=2, steps=12)
    study, model = STUDIES["spaces"], load_generator("toybox-gan")
    steps = evaluation_steps(
        ResultsFolder(tmp_path), study, wish, model, load_finder(), ["W", "W+"]
    )
    rows = [step.row for step in steps]
    assert not any("error" in row for row in rows)
    assert len({row["seed"] for row in rows}) == 2  # a face a case
    for row in rows:
        assert row["dragged"] < 1 and row["dragged"] < row["other"]
    world = World(model, load_finder(), wish.truncation)
    names = load_finder().network.points
    points = world.finder.find(world.pictures(world.latent(rows[0]["seed"]))).points[0]
    top, bottom = (float(points[names.index(f"right eye {k}"), 1]) for k in ("top", "bottom"))
    assert bottom - top > 7
    assert all(row["elsewhere"] > 0 for row in rows)


def test_scores_of_a_generator() -> None:
    model, recogniser = small(), load()
    features = trunk_features(recogniser, drawn_pictures(model, range(35)))
    assert features.shape[0] == 35
    torch.testing.assert_close(
        features[32:], trunk_features(recogniser, drawn_pictures(model, range(32, 35)))
    )
    lengths = path_lengths(model, RecogniserFeatures(recogniser), 5)
    assert lengths.shape == (5,) and bool((lengths > 0).all())
