"""Drags held near what the mapping network makes: principal directions of W, a prior term."""

from __future__ import annotations

import pytest
import torch

from test_stylegan2 import small
from understudy.drag.engine import Engine
from understudy.drag.prior import LEAST, LatentPrior
from understudy.drag.session import DragSession
from understudy.settings.drag import DragSettings


def test_directions_and_spreads_are_those_of_w() -> None:
    """Whitened, other latents of the mapping network have the identity as covariance."""
    generator = small()
    prior = LatentPrior.of(generator)
    size = generator.draw_z(0).shape[-1]
    z = torch.randn(4000, size, generator=torch.Generator().manual_seed(5))
    w = generator.latents(z)[:, 0]
    white = (w @ prior.directions) / prior.spread
    kept = prior.spread > 2 * LEAST * prior.spread.max()
    found = torch.cov(white.T)[kept][:, kept]
    assert torch.allclose(found, torch.eye(int(kept.sum())), atol=0.15)
    one = prior.spread[-1] * prior.directions[:, -1]
    assert prior.distance(one[None, None]).item() == pytest.approx(1 / len(one), rel=1e-4)


def test_steps_inwards_and_outwards_belong_together() -> None:
    """The step that a gradient gives in the coordinates goes downhill in w as much as it says."""
    prior = LatentPrior.of(small())
    random = torch.Generator().manual_seed(1)
    slope, step = (torch.randn(1, 3, len(prior.spread), generator=random) for _ in range(2))
    ours, theirs = (prior.inwards(slope) * step).sum(), (slope * prior.outwards(step)).sum()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)


def moved(**knobs: object) -> torch.Tensor:
    """How a drag of five steps changes the moving layers, in standard deviations of W."""
    generator = small()
    settings = DragSettings.filled({"steps": 5, "layers": 2, "learning_rate": 0.05, **knobs})
    ws = generator.latents(generator.draw_z(3))
    size = generator.picture_size[0]
    pairs = [((size * 0.4, size * 0.4), (size * 0.7, size * 0.4))]
    session = DragSession.begin(generator, ws, pairs, settings=settings)
    *_, last = session.run(generator)
    prior = LatentPrior.of(generator)
    return ((last.latent - ws)[0, :2] @ prior.directions) / prior.spread


def test_drags_stay_near_the_mapping_network_where_asked() -> None:
    free = moved().square().mean()
    assert moved(principal=True).square().mean() < free / 2
    assert moved(prior_weight=10.0).square().mean() < free


def test_the_prior_is_made_where_it_is_asked_for() -> None:
    generator = small()
    ws = generator.latents(generator.draw_z(0))
    free = Engine.made(generator, ws, DragSettings.filled({"layers": 2}))
    held = Engine.made(generator, ws, DragSettings.filled({"layers": 2, "principal": True}))
    assert free.prior is None and held.prior is not None
