"""swap/polish.py: between classes, refining begins with the photo and is done in two passes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from benchmarks.plain import Plain
from plain_refining import refined_plainly
from test_appearance import AGAIN_STEPS, READ, SUBJECT, Reader, shown_in
from test_refine import MASK, SETTINGS, STEPS, WANTED, Brightness
from test_swap import SOURCE, TARGET, model_of, null_text
from understudy.diffusion.sampler import starting_noise
from understudy.invert.inversion import Inversion
from understudy.models.interface import DiffusionModel
from understudy.settings import SwapSettings
from understudy.swap import blending
from understudy.swap.limits import OTHER, SAME
from understudy.swap.photoswap import swap_steps
from understudy.swap.polish import HELD, polish_count, polish_evaluations
from understudy.swap.schedule_search import ScheduleSearch, candidates, evaluations_needed
from understudy.transfer.appearance import COVERED, MOST, SHOWN
from understudy.transfer.loop import alignment
from understudy.transfer.schedule import SwapSchedule
from understudy.transfer.source_target import Source

LAST_STEPS = 3  # of the second pass
TOLD = replace(SETTINGS, refine_steps=AGAIN_STEPS, appearance_steps=READ, polish_steps=LAST_STEPS)


def one_pass(
    model: DiffusionModel,
    inversion: Inversion,
    begun: torch.Tensor,
    settings: SwapSettings,
    held: int,
    place: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> torch.Tensor:
    """Refining with pictures read in a place, written out: every row, all maps whole."""
    shown, begin = shown_in(model), STEPS - int(settings.refine_steps)
    schedule = SwapSchedule(STEPS, range(0), range(0), range(begin, begin + held))
    plain = Plain(schedule, alignment(model, SOURCE, TARGET), 1024)
    inside = F.adaptive_avg_pool2d(place, (16, 16)).flatten() > COVERED
    seen = F.adaptive_avg_pool2d(shown.masks, (16, 16)).flatten(1) > SHOWN
    for name, value in (("inside", inside), ("seen", seen), ("begin", begin)):
        monkeypatch.setattr(Reader, name, value)
    for name, module in model.unet.named_modules():
        if hasattr(module, "set_processor"):
            module.set_processor(Reader(plain, name))
    still = starting_noise([settings.noise_seed] * 2, (4, 16, 16), like=model)
    pictures = (shown.latents, still, shown.prompt)
    return refined_plainly(model, plain, begun, inversion, MASK, settings, pictures)


def test_two_passes_equal_the_plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blending, "limits_of", lambda *given, **told: OTHER)
    model = model_of()
    inversion = null_text(model, steps=STEPS)
    source = Source(inversion, subject=SUBJECT)
    steps = list(swap_steps(model, source, WANTED, TOLD, appearance=shown_in(model)))
    last = steps[-1]
    assert [step.index for step in steps] == list(range(STEPS + AGAIN_STEPS + LAST_STEPS))
    assert {step.total for step in steps} == {STEPS + AGAIN_STEPS + LAST_STEPS}
    assert last.mask is not None and torch.equal(last.mask * MASK, MASK)
    with torch.no_grad():
        first = one_pass(
            model_of(), inversion, inversion.clean, TOLD, round(HELD * AGAIN_STEPS), SUBJECT,
            monkeypatch,
        )  # fmt: skip
        second = replace(TOLD, refine_steps=LAST_STEPS)
        wanted = one_pass(model_of(), inversion, first, second, 0, last.mask, monkeypatch)
    inside = (MASK > 0).expand_as(wanted)
    found = steps[STEPS + AGAIN_STEPS - 1].target
    assert torch.allclose(found[inside], first[inside], rtol=0, atol=1e-9)
    assert torch.allclose(last.target[inside], wanted[inside], rtol=0, atol=1e-9)
    assert float((wanted - first).abs().max()) > 0.1


@pytest.mark.parametrize("why", ["one class", "no pictures", "subject not found", "0 steps"])
def test_one_pass_is_left(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """Where the second pass is not wanted, or the first cannot begin with the photo."""
    limits = SAME if why == "one class" else OTHER
    monkeypatch.setattr(blending, "limits_of", lambda *given, **told: limits)
    model = model_of()
    subject = None if why == "subject not found" else SUBJECT
    source = Source(null_text(model, steps=STEPS), subject=subject)
    shown = None if why == "no pictures" else shown_in(model)
    asked, none = replace(TOLD, polish_steps=0 if why == "0 steps" else 3), TOLD
    *_, last = swap_steps(model, source, WANTED, asked, appearance=shown)
    *_, plain = swap_steps(model, source, WANTED, replace(none, polish_steps=0), appearance=shown)
    assert last.total == plain.total == STEPS + AGAIN_STEPS
    assert torch.equal(last.target, plain.target)


def test_each_finalist_begins_with_the_photo_and_one_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blending, "limits_of", lambda *given, **told: OTHER)
    model = model_of()
    source = Source(null_text(model, steps=STEPS), subject=SUBJECT)
    settings = replace(TOLD, budget=240)
    found = candidates(settings)
    assert len(found) > 2
    search = ScheduleSearch(
        Brightness(), F.normalize(torch.ones(1, 3), dim=1), torch.zeros(1, 3, 32, 32)
    )
    shown = shown_in(model)
    steps = list(swap_steps(model, source, WANTED, settings, search=search, appearance=shown))
    assert [len(step.targets) for step in steps[STEPS:]] == [2] * 6 + [1]
    assert len({float(row.sum()) for row in steps[-2].target}) == 2, "each has its own noise"
    assert sum(step.nfe for step in steps) <= evaluations_needed(found, settings) <= 240


def test_what_two_passes_cost() -> None:
    # 2 rows twice guided for 4 and 3 steps, and 4 pictures in 2 steps of each pass.
    assert polish_evaluations(TOLD, 2, MOST) == 2 * 2 * (4 + 3) + 4 * (2 + 2)
    assert polish_count(replace(TOLD, polish_steps=0.5)) == 3
    assert polish_count(replace(TOLD, polish_steps=5)) == AGAIN_STEPS, "no more than in the first"
    assert SwapSettings.filled({"preset": "paper"}, "toybox").polish_steps == 0
    assert SwapSettings.filled({"blend": False}, "toybox").polish_steps == 0
    assert SwapSettings.filled({}).polish_steps == 0
