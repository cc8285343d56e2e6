"""swap/refine.py, pictures/tone.py: the new subject is drawn again, its background is fitted."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import exp

import pytest
import torch
import torch.nn.functional as F

from benchmarks.plain import Plain, be_plain
from plain_refining import refined_plainly
from test_concept import concept_for
from test_swap import SOURCE, TARGET, model_of, null_text
from tiny import tiny_model
from understudy.jobs import swap as jobs_swap
from understudy.jobs.events import completed
from understudy.jobs.source import InputPicture
from understudy.jobs.subjects import SwapSubjects
from understudy.pictures.tensors import blurred
from understudy.pictures.tone import toned
from understudy.settings import InvertSettings, SwapSettings
from understudy.swap import blending, photoswap
from understudy.swap.limits import SAME
from understudy.swap.photoswap import swap_steps
from understudy.swap.refine import held_count, refine_count
from understudy.swap.schedule_search import REDRAWN, ScheduleSearch, candidates
from understudy.transfer.loop import alignment
from understudy.transfer.schedule import SwapSchedule
from understudy.transfer.source_target import Replacement, Target

STEPS, AGAIN_STEPS = 6, 4
SETTINGS = SwapSettings.filled(
    {"preset": "best", "steps": STEPS, "guidance": 4.0, "budget": 0, "where": "attention"}
)
MASK = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
MASK[..., 4:12, 4:12] = 1
WANTED = Target(TARGET, (Replacement("cat", "sks dog"),), mask=MASK)


def plainly(model, begun, inversion, mask, settings, share):
    """Refining with held maps, written out: four rows a step, all maps made whole."""
    begin = STEPS - AGAIN_STEPS
    held = range(begin, begin + held_count(settings, share))
    plain = Plain(
        SwapSchedule(STEPS, range(0), range(0), held), alignment(model, SOURCE, TARGET), 1024
    )
    be_plain(model.unet, plain)
    return refined_plainly(model, plain, begun, inversion, mask, settings)


@pytest.mark.parametrize("share", [0.0, 0.5, pytest.param(1.0, marks=pytest.mark.slow)])
def test_refining_equals_the_plain_loop(monkeypatch, share):
    """Share: of the repeated steps, that take A from the source."""
    monkeypatch.setattr(blending, "limits_of", lambda *given, **told: replace(SAME, held=share))
    model = model_of()
    inversion = null_text(model, steps=STEPS)
    settings = replace(SETTINGS, refine_steps=AGAIN_STEPS)
    *_, before = swap_steps(model, inversion, WANTED, replace(settings, refine_steps=0))
    with torch.no_grad():
        wanted = plainly(model_of(), before.target, inversion, before.mask, settings, share)
    steps = list(swap_steps(model, inversion, WANTED, settings))
    assert [step.index for step in steps] == list(range(STEPS + AGAIN_STEPS))
    assert {step.total for step in steps} == {STEPS + AGAIN_STEPS}
    assert torch.allclose(steps[-1].target, wanted, rtol=0, atol=1e-10)
    assert float((steps[-1].target - before.target).abs().max()) > 0.1
    outside = (before.mask == 0).expand_as(wanted)
    assert torch.equal(steps[-1].target[outside], inversion.clean[outside])


def test_how_many_steps_are_taken_again():
    assert refine_count(replace(SETTINGS, refine_steps=0.5)) == 3
    assert refine_count(replace(SETTINGS, refine_steps=100)) == STEPS
    assert SwapSettings.filled({"steps": 25}).refine_steps == 15
    assert SwapSettings.filled({"preset": "paper"}).refine_steps == 0
    assert SwapSettings.filled({"blend": False}).refine_steps == 0
    assert SwapSettings.filled({"blend": False, "preset": "official"}).refine_steps == 0


class Brightness:
    """Identity is the mean colour; layout says nothing."""

    def identity(self, pictures, subject=None):
        return F.normalize(pictures.mean((2, 3)), dim=1)

    def layout(self, pictures, subject=None):
        return F.normalize(torch.ones(len(pictures), 4), dim=1)


def test_each_finalist_is_refined_with_several_noises_and_one_is_left(monkeypatch):
    monkeypatch.setattr(blending, "limits_of", lambda *given, **told: SAME)
    model = model_of()
    inversion = null_text(model, steps=STEPS)
    settings = replace(SETTINGS, refine_steps=2, budget=200)
    assert len(candidates(settings)) > 2
    search = ScheduleSearch(
        Brightness(), F.normalize(torch.ones(1, 3), dim=1), torch.zeros(1, 3, 32, 32)
    )
    steps = list(swap_steps(model, inversion, WANTED, settings, search=search))
    assert len(steps[-3].targets) == 2 and len(steps[-2].targets) == 2 * REDRAWN
    assert len(steps[-1].targets) == 1
    scores = search.scores(model, steps[-2])
    assert scores.unique().numel() == 2 * REDRAWN, "every row has its own noise"
    assert steps[-1].nfe == 2 * 2 * REDRAWN
    assert steps[-2].nfe == 2 * 2 * REDRAWN + 1, "the source's row, whose maps are held"


def test_a_blur_is_the_weighted_sum_over_three_deviations():
    values = torch.randn(
        2, 3, 9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    wanted = torch.zeros_like(values)
    weights = {d: exp(-(d**2) / (2 * 0.9**2)) for d in range(-3, 4)}
    for row, column in product(range(9), range(7)):
        for (down, one), (right, other) in product(weights.items(), weights.items()):
            at = values[:, :, min(max(row + down, 0), 8), min(max(column + right, 0), 6)]
            wanted[:, :, row, column] += one * other * at / sum(weights.values()) ** 2
    torch.testing.assert_close(blurred(values, 0.9), wanted)


def test_the_background_takes_the_photo_s_tone_and_the_subject_stays():
    torch.manual_seed(0)
    photo = 0.3 * torch.rand(1, 3, 128, 128)
    edited = photo + torch.tensor([0.1, -0.05, 0.02]).view(1, 3, 1, 1)
    old, new = torch.zeros(1, 1, 128, 128), torch.zeros(1, 1, 128, 128)
    old[..., 30:60, 30:60], new[..., 30:60, 45:75] = 1, 1
    edited[..., 30:60, 45:75] += 0.9
    edited[..., 20:30, 55:65] += 0.9  # a hat that the mask of the new subject misses
    found = toned(photo, edited, photo, old, new)
    gap = (slice(None), slice(None), slice(34, 56), slice(32, 41))
    assert float((found - photo)[gap].abs().mean()) < 0.02
    for inside in ((slice(34, 56), slice(50, 70)), (slice(22, 28), slice(57, 63))):
        assert torch.allclose(found[..., *inside], edited[..., *inside], atol=1e-3)


def test_where_nothing_is_known_nothing_is_changed():
    edited = torch.rand(2, 3, 32, 32)
    whole = torch.ones(2, 1, 32, 32)
    assert torch.equal(
        toned(torch.zeros(1, 3, 32, 32), edited, edited[:1], whole[:1], whole), edited
    )


def test_the_old_subject_is_found_before_concepts_are_applied(monkeypatch):
    """Learning a subject may change what its class word attends to."""
    model = tiny_model("toy")
    weight = model.unet.conv_in.weight
    before, seen = weight.detach().clone(), list[bool]()

    def find(model, picture, prompt, replacements):
        seen.append(torch.equal(weight, before))
        return torch.ones(1, 1, *model.picture_size)

    monkeypatch.setattr(jobs_swap, "old_subject", find)
    monkeypatch.setattr(photoswap, "old_subject", find)
    monkeypatch.setattr(blending, "old_subject", find)
    concept = concept_for(model, "rex", 0)
    picture = torch.zeros(1, 3, *model.picture_size)
    source = InputPicture("a photo of cat", picture)
    subjects = SwapSubjects(
        (Replacement("cat", concept.phrase),), (concept,), f"a photo of {concept.phrase}"
    )
    settings = SwapSettings(steps=2, budget=0, refine_steps=0, self_output_steps=1)
    asked = InvertSettings(steps=2, method="direct", guidance=settings.guidance)
    completed(jobs_swap.swapped(model, source, subjects, settings, asked))
    assert seen == [True], "found once, by the model as it was"
    assert torch.equal(weight, before)
