"""The landmark finder: shapes, units, and weights that survive the disk."""

from pathlib import Path

import pytest
import torch

from understudy import toybox
from understudy.errors import ModelError
from understudy.pictures.tensors import to_tensor
from understudy.vision import landmarks
from understudy.vision.landmarks import FinderNetwork, LandmarkFinder, finder_loss

NAMES = ("nose", "chin", "crown")


def tiny() -> FinderNetwork:
    torch.manual_seed(0)
    return FinderNetwork(NAMES, width=8)


def test_points_are_in_pixels_of_the_pictures_given() -> None:
    finder = LandmarkFinder(tiny())
    pictures = torch.rand(3, 3, 128, 128) * 2 - 1
    found = finder.find(pictures, batch=2)
    assert (
        found.names == NAMES and found.points.shape == (3, 3, 2) and found.visible.shape == (3, 3)
    )
    small = torch.nn.functional.avg_pool2d(pictures, 2)
    seen = torch.nn.functional.interpolate(small, (128, 128), mode="bilinear", antialias=True)
    torch.testing.assert_close(finder.find(small).points, finder.find(seen).points / 2)


def test_it_learns_a_point() -> None:
    network = tiny()
    pictures = torch.rand(4, 3, 128, 128) * 2 - 1
    points = torch.tensor([[[20.0, 90.0, 1], [64, 64, 1], [100, 30, 0]]]).expand(4, -1, -1)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        finder_loss(network, pictures, points).backward()
        optimiser.step()
    errors = landmarks.landmark_errors(LandmarkFinder(network), pictures, points)
    assert len(errors) == 8 and errors.mean() < 3


def test_weights_survive_the_disk(tmp_path: Path) -> None:
    network = tiny()
    landmarks.save_finder(network, tmp_path, {"mean error": 1.0})
    pictures = torch.rand(1, 3, 128, 128)
    ours, theirs = LandmarkFinder(network).find(pictures), landmarks.load(tmp_path).find(pictures)
    torch.testing.assert_close(ours.points, theirs.points, atol=0.2, rtol=0)
    assert ours.names == theirs.names
    (tmp_path / landmarks.MANIFEST).write_text('{"points": ["nose"], "width": 8}')
    with pytest.raises(ModelError, match="do not fit together"):
        landmarks.load(tmp_path)
    with pytest.raises(ModelError, match="no landmark finder"):
        landmarks.load(tmp_path / "nowhere")


def test_the_built_in_finder_finds_a_face() -> None:
    face = toybox.sample_face(10_000_001)
    drawn = toybox.portrait(face)
    found = landmarks.load().find(to_tensor(drawn.picture))
    assert found.names == toybox.FACE_POINTS
    apart = [
        ((x - point.x) ** 2 + (y - point.y) ** 2) ** 0.5
        for (x, y), point in zip(found.points[0].tolist(), drawn.keypoints.values(), strict=True)
        if point.visible
    ]
    assert sum(apart) / len(apart) < 4
