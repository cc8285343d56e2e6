"""The recogniser's training: the losses against hand calculation, augmentation against geometry,
and a resumed run against an unbroken one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from training import recogniser_examples, recogniser_training
from training.recogniser_examples import Batch
from training.recogniser_training import Memory, Trainer


def batch(count: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(count, 14, 3, generator=generator) * 100 + 10
    points[..., 2] = 1
    points[:, 3] = torch.nan
    masks = torch.zeros(count, 1, 128, 128)
    masks[..., 40:90, 30:80] = 1
    return Batch(
        pictures=torch.rand(count, 3, 128, 128, generator=generator) * 2 - 1,
        masks=masks,
        points=points,
        labels=torch.zeros(count, len(recogniser_examples.HEADS), dtype=torch.long),
        traits=torch.zeros(count, recogniser_examples.TRAITS),
        groups=torch.arange(count) // 4,
        told=torch.arange(count) % 2 == 0,
    )


def test_points_move_with_the_picture() -> None:
    before = batch(2)
    before.pictures[:] = -1
    for i, (x, y) in enumerate(before.points[:, 0, :2].floor().long().tolist()):
        before.pictures[i, :, y - 1 : y + 2, x - 1 : x + 2] = 1
    before.points[:, 0, :2] = before.points[:, 0, :2].floor() + 0.5
    after = recogniser_examples.augment(before, torch.Generator().manual_seed(5))
    bright = (after.pictures.mean(dim=1) - after.pictures.mean(dim=(1, 2, 3))[:, None, None]).clamp(
        0.5
    )
    bright = bright - 0.5
    cells = torch.arange(128) + 0.5
    x = (bright.sum(dim=1) * cells).sum(dim=1) / bright.sum(dim=(1, 2))
    y = (bright.sum(dim=2) * cells).sum(dim=1) / bright.sum(dim=(1, 2))
    torch.testing.assert_close(torch.stack([x, y], 1), after.points[:, 0, :2], atol=0.6, rtol=0)


def test_block_reduced_keeps_a_flat_picture_and_removes_the_finest_detail() -> None:
    flat = torch.full((1, 3, 16, 16), 0.3)
    torch.testing.assert_close(
        recogniser_examples.block_reduced(flat, 100), flat, atol=1e-5, rtol=0
    )
    checks = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1
    reduced = recogniser_examples.block_reduced(checks.expand(1, 3, 16, 16), 60)
    assert reduced.abs().max() < 0.5


def test_contrast_of_two_toys_seen_twice() -> None:
    # Views coincide, toys are orthogonal, classes differ: -log(e^(1/t) / (e^(1/t) + 2)).
    z = torch.eye(2).repeat_interleave(2, dim=0)
    marks = torch.tensor([[0, 0], [0, 0], [1, 1], [1, 1]])
    loss = recogniser_training.contrast(z, marks, Memory(2), temperature=0.5)
    assert loss.item() == pytest.approx(math.log(1 + 2 * math.exp(-2)), abs=1e-6)
    # A negative of one's own class counts as four.
    marks[:, 1] = 0
    loss = recogniser_training.contrast(z, marks, Memory(2), temperature=0.5)
    assert loss.item() == pytest.approx(math.log(1 + 8 * math.exp(-2)), abs=1e-6)


def test_toys_seen_once_teach_nothing_and_break_nothing() -> None:
    z = torch.eye(3, requires_grad=True)
    loss = recogniser_training.contrast(z, torch.arange(6).view(3, 2), Memory(3))
    loss.backward()
    assert loss.item() == 0 and z.grad is not None and not z.grad.any()


def test_a_heat_map_at_the_point_is_the_least_loss() -> None:
    points = torch.tensor([[[42.0, 86.0, 1.0]]])  # cell centre 10, 21 of 32
    heat = torch.full((1, 1, 32, 32), -20.0)
    heat[..., 21, 10] = 20
    placed, _ = recogniser_training.point_losses(heat, torch.zeros(1, 1), points)
    assert placed.item() == pytest.approx(0, abs=1e-5)
    _, seen = recogniser_training.point_losses(heat, torch.zeros(1, 1), points * torch.nan)
    assert seen.item() == pytest.approx(math.log(2))


def test_an_epoch_shows_every_scene_once_with_its_group() -> None:
    groups = torch.arange(40) // 4
    rows = list(recogniser_examples.order(groups, torch.Generator().manual_seed(0), 8))
    assert torch.cat(rows).sort().values.tolist() == list(range(40))
    assert all(len(groups[r].unique()) == 2 for r in rows)


@pytest.mark.slow
def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    def steps(trainer: Trainer, count: int) -> dict[str, float]:
        parts: dict[str, float] = {}
        for _ in range(count):
            parts = trainer.step(batch(), 1e-3)
        return parts

    unbroken, broken, resumed = Trainer(seed=1), Trainer(seed=1), Trainer(seed=2)
    wanted = steps(unbroken, 3)
    steps(broken, 2)
    broken.save(tmp_path / "state.pt")
    resumed.load(tmp_path / "state.pt")
    assert steps(resumed, 1) == pytest.approx(wanted, rel=1e-5)
