"""The script that builds toybox-gan: what a latent means, and that a killed run goes on."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from benchmarks.real_faces import building
from understudy import toybox
from understudy.generators.stylegan2.generator import StyleGAN2
from understudy.toybox.faces import PARAMETERS, SHAPE


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return building()


def shares(count: int) -> torch.Tensor:
    rows = [toybox.sample_face(seed).numbers() for seed in range(count)]
    return torch.tensor(rows).clamp(0.002, 0.998)


def test_a_latent_says_its_numbers(script: ModuleType) -> None:
    numbers = shares(6)
    z = script.latents_of(numbers, torch.Generator().manual_seed(0))
    torch.testing.assert_close(script.numbers_of(z), numbers, atol=2e-3, rtol=0)
    torch.testing.assert_close(script.numbers_of(3 * z), numbers, atol=2e-3, rtol=0)
    drawn = script.numbers_of(torch.randn(4000, script.CONFIG.z_dim))
    assert (drawn.mean(dim=0) - 0.5).abs().max() < 0.03
    assert (drawn.std(dim=0) - 12**-0.5).abs().max() < 0.03  # uniform


def test_mixed_latents_say_outlines_below_and_colours_above(script: ModuleType) -> None:
    numbers, split = shares(8), len(SHAPE)
    coarse, fine = script.mixed_latents(numbers, torch.Generator().manual_seed(0))
    assert torch.equal(coarse[:4], fine[:4])
    below, above = script.numbers_of(coarse), script.numbers_of(fine)
    torch.testing.assert_close(below[:, :split], numbers[:, :split], atol=2e-3, rtol=0)
    torch.testing.assert_close(above[:, split:], numbers[:, split:], atol=2e-3, rtol=0)
    assert (below[4:, split:] - numbers[4:, split:]).abs().max() > 0.1


def test_faces_of_all_shares_are_within_the_world(script: ModuleType) -> None:
    low, high = (script.face_of([share] * len(PARAMETERS)) for share in (0.0, 1.0))
    assert low.turn < toybox.Face().turn < high.turn and low.patch == high.patch
    assert script.RANGES.keys() <= set(PARAMETERS)


def test_the_mapping_begins_by_telling_numbers_apart(script: ModuleType) -> None:
    model = StyleGAN2(script.CONFIG)
    script.bend_mapping(model.mapping)
    numbers = torch.full((2, len(PARAMETERS)), 0.5)
    numbers[1, 0] = 0.9
    w = model.latents(script.latents_of(numbers, torch.Generator().manual_seed(0)))[:, 0]
    changed = (w[0] - w[1]).abs()
    assert changed[:3].max() > 10 * changed[3:].median()


def test_a_killed_run_goes_on(script: ModuleType, tmp_path: Path) -> None:
    picture = torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8)
    points = torch.rand(4, len(toybox.FACE_POINTS), 3) * 100
    faces = script.Faces(picture, shares(4), points)
    one, two = (script.Training.new("cpu", seed) for seed in (0, 1))
    losses = [one.step(faces, 16, 1e-2) for _ in range(4)]
    assert losses[-1] < losses[0]
    one.save(tmp_path / "state.pt")
    two.load(tmp_path / "state.pt")
    assert two.index == 4
    assert one.step(faces, 16, 1e-2) == pytest.approx(two.step(faces, 16, 1e-2), rel=1e-4)


def test_points_move_with_their_pictures(script: ModuleType) -> None:
    picture = torch.zeros(8, 3, 128, 128, dtype=torch.uint8)
    picture[:, :, 58:63, 78:83] = 255
    points = torch.tensor([[[80.5, 60.5, 1.0]]]).expand(8, -1, -1)
    faces = script.Faces(picture, shares(8), points)
    shown, places = script.moved(faces, torch.Generator().manual_seed(0))
    light = (shown[:, 0] + 1).clamp(min=0)
    grid = torch.arange(128) + 0.5
    x = (light.sum(1) * grid).sum(1) / light.sum((1, 2))
    y = (light.sum(2) * grid).sum(1) / light.sum((1, 2))
    torch.testing.assert_close(places[:, 0, :2], torch.stack([x, y], 1), atol=0.35, rtol=0)
    assert (places[:, 0, 0] - 80.5).abs().max() > 3
