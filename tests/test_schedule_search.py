"""swap/schedule_search.py: candidates within a budget, scored, one left in the end."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from test_swap import TARGET, null_text
from tiny import tiny_model
from understudy import toybox
from understudy.evaluate import truth
from understudy.settings import SwapSettings
from understudy.swap.photoswap import parts_read, schedule_of, swap_steps
from understudy.swap.schedule_search import (
    ScheduleSearch,
    Scorer,
    candidates,
    evaluations_needed,
    scoring_step,
)
from understudy.swap.scorer import ToyScorer
from understudy.swap.sweep import Axis, cells, sweep_steps
from understudy.transfer.step import FreshNoise, StochasticNoise
from understudy.vision.recogniser import load

PAPER = SwapSettings.filled({"preset": "paper"})
BEST = SwapSettings.filled({"preset": "best"})


class Eye:
    """Likes pictures for how bright they are: identity is the mean colour, layout says nothing."""

    def identity(self, pictures, subject=None):
        return F.normalize(pictures.mean((2, 3)), dim=1)

    def layout(self, pictures, subject=None):
        return F.normalize(torch.ones(len(pictures), 4), dim=1)


@pytest.mark.parametrize(("budget", "count"), [(0, 1), (150, 1), (300, 3), (351, 4), (10_000, 9)])
def test_candidates_fit_the_budget(budget, count):
    settings = replace(BEST, budget=budget, refine_steps=0)
    plans = candidates(settings)
    assert len(plans) == count == len(set(plans)) and plans[0].plan == schedule_of(settings)
    assert count == 1 or evaluations_needed(plans, settings) <= budget


def test_without_fresh_noise_candidates_differ_in_their_schedules_only():
    found = candidates(replace(BEST, budget=10_000, eta=0.0))
    assert len(found) == len({one.plan for one in found}) == 5
    assert {one.seed for one in found} == {BEST.noise_seed}


def test_targets_have_noise_of_their_own():
    stochastic = StochasticNoise(1.0, temperature=0.5, seeds=(3, 4, 3))
    assert stochastic.parted([0, 0, 0]) == [0, 1, 0] and stochastic.parted([0, 1, 2]) == [0, 1, 2]
    assert StochasticNoise(1.0, seed=5).parted([0, 0]) == [0, 0]
    model, noise = tiny_model("sd15"), FreshNoise(stochastic)
    first, second = (noise.next([0, 1, 2], (4, 8, 8), model) for _ in range(2))
    assert torch.equal(first[0], first[2]) and not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], second[0]) and 0.4 < float(first.std()) < 0.6
    # A target that has left the run takes nothing from the others' noise.
    alone = FreshNoise(stochastic)
    assert torch.equal(alone.next([1], (4, 8, 8), model)[0], first[1])


def test_the_toy_judge_tells_poses_apart():
    """A toy in another place, or turned round in its place, has another layout."""
    cat = toybox.sample_identity(71, "cat")
    scene = toybox.sample_scene(3, identity=cat, background="rug", subjects=1, props=0)
    pose = replace(scene.subjects[0].pose, x=0.0, yaw=50.0, head_yaw=0.0)
    poses = [pose, replace(pose, yaw=44.0), replace(pose, yaw=-50.0), replace(pose, x=0.25)]
    shown = [replace(scene, subjects=(replace(scene.subjects[0], pose=one),)) for one in poses]
    layouts = ToyScorer(load()).layout(truth.pictures(shown))
    assert torch.allclose(layouts.norm(dim=1), torch.ones(4))
    itself, near, turned, aside = (layouts @ layouts[0]).tolist()
    assert itself > near > 0.85 and near > turned + 0.1 and near > aside + 0.3


def test_numbers_given_leave_nothing_to_choose():
    assert SwapSettings.filled({"preset": "best"}).budget > 0
    assert SwapSettings.filled({"preset": "best", "self_map_steps": 3}).budget == 0
    assert SwapSettings.filled({"preset": "best", "steps": 10}).self_output_steps == 1
    assert SwapSettings.filled({"preset": "best"}).paste
    assert not SwapSettings.filled({"preset": "best", "blend": False}).paste


@pytest.mark.parametrize("targets", [(TARGET,), (TARGET, "a photo of red bear on the beach")])
def test_the_best_candidate_goes_on_alone_within_the_budget(targets):
    model = tiny_model("sd15", dtype=torch.float64)
    inversion = null_text(model, steps=10, guidance=7.5)
    settings = SwapSettings.filled({"preset": "best", "steps": 10, "budget": 58 * len(targets)})
    settings = replace(settings, blend=False, refine_steps=0)
    plans = candidates(settings, len(targets))
    assert len(plans) == 3
    before, photo = model.nfe, torch.zeros(1, 3, 32, 32)
    search = ScheduleSearch(Eye(), F.normalize(torch.ones(1, 3), dim=1), photo)
    steps = list(swap_steps(model, inversion, targets, settings, search=search))
    assert (
        model.nfe - before <= evaluations_needed(plans, settings, len(targets)) <= settings.budget
    )
    counts = [len(step.targets) for step in steps]
    assert counts == [n * len(targets) for n in (3, 3, 3, 3, 3, 3, 2, 2, 2, 1)]
    scored = steps[scoring_step(settings)]
    scores = search.scores(model, scored).unflatten(0, (len(targets), 3))
    for n, number in enumerate(steps[-1].targets):
        assert number // 3 == n and number % 3 in scores[n].topk(2).indices.tolist()
        plain = replace(settings, budget=0)
        chosen = plans[number % 3]
        alone = chosen.plan
        ends = (len(alone.self_output), len(alone.self_map), len(alone.cross_map))
        names = ("self_output_steps", "self_map_steps", "cross_map_steps")
        plain = replace(plain, **dict(zip(names, ends, strict=True)), noise_seed=chosen.seed)
        *_, last = swap_steps(model, inversion, targets[n], plain)
        assert torch.allclose(last.target[0], steps[-1].target[n], rtol=0, atol=1e-9)


def test_the_mask_of_the_blend_is_counted():
    model = tiny_model("sd15", dtype=torch.float64)
    inversion = null_text(model, steps=10, guidance=7.5)
    given = {"preset": "best", "steps": 10, "budget": 73, "refine_steps": 0}
    settings = SwapSettings.filled(given)
    plans, before = candidates(settings), model.nfe
    search = ScheduleSearch(Eye(), F.normalize(torch.ones(1, 3), dim=1), torch.zeros(1, 3, 32, 32))
    steps = swap_steps(model, inversion, TARGET, settings, search=search)
    spent = 16 + sum(step.nfe for step in steps)
    assert len(plans) == 3 and model.nfe - before == spent
    assert spent <= evaluations_needed(plans, settings) == 73


def test_what_candidates_read_is_known_beforehand():
    wide = replace(BEST, budget=10_000)
    assert parts_read(wide, 12) == {"output", "uncond", "map", "cross"}
    assert parts_read(replace(BEST, budget=0), 12) == set()
    assert parts_read(replace(BEST, budget=0, where="attention"), 12) == {"words"}
    assert isinstance(Eye(), Scorer)


def test_a_sweep_costs_a_fraction_of_its_swaps():
    model = tiny_model("sd15")
    inversion = null_text(model, steps=50, guidance=7.5)
    shares = (0.1, 0.2, 0.3, 0.4, 0.5)
    axes = Axis("self_output_steps", shares), Axis("cross_map_steps", shares)
    grid = cells(PAPER, *axes)
    assert [(c.row, c.column) for c in grid[:6]] == [(0, n) for n in range(5)] + [(1, 0)]
    before = model.nfe
    for step in sweep_steps(model, inversion, TARGET, grid):
        if step.index == 7:
            break
    assert step.target.shape[0] == 25 and model.nfe - before < 8 * 4 * 3
    # By then only the smallest value of either knob is over: the other four are still one.
    assert len(torch.unique(step.target, dim=0)) == 4
