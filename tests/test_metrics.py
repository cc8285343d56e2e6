"""The metrics against closed forms."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

from understudy.errors import InputError
from understudy.pictures import metrics


def flat(value: float, size: int = 16) -> torch.Tensor:
    return torch.full((1, 3, size, size), value)


def test_psnr_of_a_constant_error() -> None:
    # An error of 0.2 against a peak of 2: 20 log10(2 / 0.2) = 20 dB.
    assert metrics.psnr(flat(0.3), flat(0.1)).item() == pytest.approx(20, abs=1e-4)
    assert metrics.psnr(flat(0.3), flat(0.3)).item() == math.inf


def test_psnr_is_a_number_for_each_picture() -> None:
    ours = torch.cat([flat(0.2), flat(0.02)])
    assert metrics.psnr(ours, torch.zeros_like(ours)).tolist() == pytest.approx([20, 40], abs=1e-4)


def test_background_psnr_ignores_the_changed_region() -> None:
    source, edited, changed = flat(0.0), flat(0.02), torch.zeros(1, 1, 16, 16)
    changed[..., :8] = 1
    edited[..., :8] = 1.0
    assert metrics.background_psnr(edited, source, changed).item() == pytest.approx(40, abs=1e-3)
    nothing_left = torch.ones_like(changed)
    assert metrics.background_psnr(edited, source, nothing_left).isnan().all()


def test_ssim_of_flat_pictures_is_the_luminance_term() -> None:
    c1 = (0.01 * 2) ** 2
    wanted = (2 * 1.3 * 1.5 + c1) / (1.3**2 + 1.5**2 + c1)
    assert metrics.ssim(flat(0.3), flat(0.5)).item() == pytest.approx(wanted, abs=1e-6)


def test_ssim_of_a_picture_with_itself_and_its_negative() -> None:
    noise = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0)) - 0.5
    assert metrics.ssim(noise, noise).tolist() == pytest.approx([1, 1], abs=1e-6)
    assert (metrics.ssim(noise, -noise) < 0).all()


def test_ssim_needs_room_for_its_window() -> None:
    with pytest.raises(InputError, match="11 pixels"):
        metrics.ssim(flat(0.0, 8), flat(0.0, 8))


def test_two_shapes_are_refused() -> None:
    # Past the shape checks of the test run, as a user meets it.
    with pytest.raises(InputError, match="one shape"):
        inspect.unwrap(metrics.psnr)(flat(0.0, 8), flat(0.0, 16))


def test_identity_score_is_the_cosine() -> None:
    angle = torch.tensor([0.0, math.pi / 3, math.pi])
    ours = torch.stack([angle.cos(), angle.sin()], dim=1)
    theirs = torch.tensor([[2.0, 0.0]]).expand(3, 2)  # length does not matter
    assert metrics.identity_score(ours, theirs).tolist() == pytest.approx([1, 0.5, -1], abs=1e-6)


def test_fidelity_is_over_all_pairs_and_self_fidelity_leaves_out_the_diagonal() -> None:
    axes = torch.eye(3)
    assert metrics.subject_fidelity(axes, axes).item() == pytest.approx(1 / 3)
    assert metrics.self_fidelity(axes).item() == pytest.approx(0)
    assert metrics.class_drift(axes[:1], axes[:1]).item() == pytest.approx(1)
    assert metrics.diversity(axes).item() == pytest.approx(1)
    assert metrics.diversity(axes[:1].expand(4, 3)).item() == pytest.approx(0)
    with pytest.raises(InputError, match="two photos"):
        metrics.self_fidelity(axes[:1])


def test_copy_score_finds_the_copied_photo() -> None:
    photos = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    generated = torch.stack([photos[2], -photos[0]])
    score = metrics.copy_score(generated, photos)
    assert score[0].item() == pytest.approx(1, abs=1e-6)
    assert score[1] < 0.5


def test_pose_error_of_a_shift_is_its_length_over_the_size() -> None:
    truth = torch.rand(1, 5, 2) * 100
    ours = truth + torch.tensor([3.0, 4.0])
    ours[0, 4] += 1000  # not shared: must not count
    shared = torch.tensor([[True, True, True, True, False]])
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :50, :50] = 1
    error = metrics.pose_error(ours, truth, shared, metrics.subject_size(mask))
    assert error.item() == pytest.approx(5 / 50, abs=1e-5)
    assert metrics.pose_error(ours, truth, ~shared & shared, torch.ones(1)).isnan().all()


def test_overlap_of_half_masks() -> None:
    left, top = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    left[..., :4] = 1
    top[..., :4, :] = 1
    assert metrics.overlap(left, top).item() == pytest.approx(1 / 3)
    assert metrics.overlap(left * 0, left * 0).item() == 1


def test_region_error_of_a_constant() -> None:
    where = torch.zeros(1, 1, 16, 16)
    where[..., :8] = 1
    ours = flat(0.0)
    ours[..., :8] = 0.4  # a fifth of the way from black to white
    assert metrics.region_error(ours, flat(0.0), where).item() == pytest.approx(0.2, abs=1e-6)
    assert metrics.region_error(ours, flat(0.0), 1 - where).item() == 0
    assert metrics.region_error(ours, flat(0.0), 0 * where).isnan().all()


def test_ssim_in_a_region_sees_only_the_region() -> None:
    noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2)) - 0.5
    changed = noise.clone()
    changed[..., 16:] *= -1
    left, right = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    left[..., :10], right[..., 22:] = 1, 1
    assert metrics.ssim(changed, noise, left).item() == pytest.approx(1, abs=1e-6)
    assert metrics.ssim(changed, noise, right).item() < 0
    assert metrics.ssim(changed, noise, left * 0).isnan().all()
    everywhere = metrics.ssim(changed, noise, torch.ones_like(left))
    assert everywhere.item() == pytest.approx(metrics.ssim(changed, noise).item())


def test_fid_of_gaussians_is_their_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(500, 3, generator=generator, dtype=torch.float64)
    points = points - points.mean(dim=0)
    points = points @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(points.T))).T  # cov = 1
    scale, shift = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.0, -1.0])
    # Diagonal covariances 1 and s^2: |m|^2 + sum (s - 1)^2.
    wanted = 0.25 + 1 + 0 + 1 + 4
    assert metrics.frechet_distance(points, points * scale + shift) == pytest.approx(wanted)
    assert metrics.frechet_distance(points, points) == pytest.approx(0, abs=1e-8)
    assert metrics.frechet_distance(points[:, :1], 2 * points[:, :1]) == pytest.approx(1)
    with pytest.raises(InputError, match="two pictures"):
        metrics.frechet_distance(points[:1], points)


def test_pair_diversity_is_the_mean_over_pairs() -> None:
    pictures = torch.tensor([0.0, 0.1, 0.4]).view(3, 1, 1, 1).expand(3, 3, 8, 8)
    found = metrics.pair_diversity(pictures, lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)))
    assert found.item() == pytest.approx((0.1 + 0.4 + 0.3) / 3)
    with pytest.raises(InputError, match="two pictures"):
        metrics.pair_diversity(pictures[:1], lambda a, b: a)
