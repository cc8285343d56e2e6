"""What the measurements of drags and of the built-in generator rest on."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from benchmarks.drag_drift import drift
from benchmarks.drag_speed import Task, region
from benchmarks.gan_fid import CHUNK, kept
from benchmarks.real_faces import EDITS, held_out, landmarks, wanted
from understudy.vision.landmarks import load as load_finder


def test_two_programs_of_a_drag_differ_by_rounding_alone() -> None:
    task = Task("3 points", 128, 2, "cpu")
    row = drift(task)
    assert row["alike"] and row["slope 64"] < 1e-12 and row["w 64"] < 1e-12
    assert 1e-10 < row["slope"] < 1e-4  # float32 does round
    found = region(task, 1)
    assert 0 < found["region"] < found["map"]


def test_features_are_kept_and_a_larger_count_makes_only_what_is_missing(tmp_path: Path) -> None:
    asked: list[range] = []

    def make(seeds: range) -> Tensor:
        asked.append(seeds)
        return torch.arange(seeds.start, seeds.stop).float()[:, None]

    assert torch.equal(kept(tmp_path, make, 0, CHUNK)[:, 0], torch.arange(CHUNK).float())
    whole = kept(tmp_path, make, 0, 3 * CHUNK)
    assert torch.equal(whole[:, 0], torch.arange(3 * CHUNK).float())
    assert [seeds.start for seeds in asked] == [0, CHUNK, 2 * CHUNK]


def test_edits_of_a_chain_ask_for_what_they_say() -> None:
    finder, photo = load_finder(), held_out(1)
    at = landmarks(finder, photo)
    for name, move in EDITS.items():
        pairs, names = wanted(finder, photo, move)
        assert len(pairs) == len(names) == len(move(at)), name
        for (handle, goal), point in zip(pairs, names, strict=True):
            right, down = move(at)[point]
            assert abs(handle[0] + 0.5 - at[point][0]) < 1e-4
            assert 0 <= goal[0] <= 127 and 0 <= goal[1] <= 127
            if 0 < handle[0] + right < 127 and 0 < handle[1] + down < 127:
                assert abs(goal[0] - handle[0] - right) + abs(goal[1] - handle[1] - down) < 1e-4
    lids = wanted(finder, photo, EDITS["eyes"])[0]
    assert lids[0][1][1] > lids[0][0][1]  # downwards
