"""swap/polish.py: between classes, a candidate begins with the photo and is drawn in two passes."""

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
from understudy.swap.schedule_search import REDRAWN, ScheduleSearch, candidates, evaluations_needed
from understudy.transfer.appearance import COVERED, MOST, SHOWN
from understudy.transfer.loop import alignment
from understudy.transfer.schedule import SwapSchedule
from understudy.transfer.source_target import Source
from understudy.transfer.step import SwapStep

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


def every(step: SwapStep) -> list[int]:
    """All rows of a step."""
    return list(range(len(step.targets)))


def searching() -> ScheduleSearch:
    return ScheduleSearch(
        Brightness(), F.normalize(torch.ones(1, 3), dim=1), torch.zeros(1, 3, 32, 32)
    )


def test_two_passes_equal_the_plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """One finalist: two rows begin with the swapped picture, one with the photo."""
    monkeypatch.setattr(blending, "limits_of", lambda *given, **told: OTHER)
    model = model_of()
    inversion = null_text(model, steps=STEPS)
    source = Source(inversion, subject=SUBJECT)
    told = replace(TOLD, budget=1)
    assert len(candidates(told)) == 1
    shown = shown_in(model)
    for name in ("best", "recognised"):
        monkeypatch.setattr(ScheduleSearch, name, lambda me, model, step, *_: every(step))
    search = searching()
    steps = list(swap_steps(model, source, WANTED, told, search=search, appearance=shown))
    total = STEPS + 2 * AGAIN_STEPS + LAST_STEPS
    assert [step.index for step in steps] == list(range(total))
    assert {step.total for step in steps} == {total}
    last, plain = steps[-1], steps[STEPS + AGAIN_STEPS - 1]
    assert torch.equal(last.target[:2], plain.target), "the rows that began with the swap"
    assert last.mask is not None and torch.equal(last.mask[2:] * MASK, MASK)
    with torch.no_grad():
        held = round(HELD * AGAIN_STEPS)
        first = one_pass(model_of(), inversion, inversion.clean, TOLD, held, SUBJECT, monkeypatch)
        second = replace(TOLD, refine_steps=LAST_STEPS)
        wanted = one_pass(model_of(), inversion, first, second, 0, last.mask[2:], monkeypatch)
    inside = (MASK > 0).expand_as(wanted)
    found = steps[STEPS + 2 * AGAIN_STEPS - 1].target
    assert torch.allclose(found[inside], first[inside], rtol=0, atol=1e-9)
    assert torch.allclose(last.target[2:][inside], wanted[inside], rtol=0, atol=1e-9)
    assert float((wanted - first).abs().max()) > 0.1


@pytest.mark.parametrize(
    "why", ["one class", "no pictures", "subject not found", "no search", "0 steps"]
)
def test_without_them_nothing_changes(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    limits = SAME if why == "one class" else OTHER
    monkeypatch.setattr(blending, "limits_of", lambda *given, **told: limits)
    model = model_of()
    subject = None if why == "subject not found" else SUBJECT
    source = Source(null_text(model, steps=STEPS), subject=subject)
    shown = None if why == "no pictures" else shown_in(model)
    search = None if why == "no search" else searching()
    none = replace(TOLD, budget=1, polish_steps=0)
    asked = none if why == "0 steps" else replace(TOLD, budget=1)
    *_, last = swap_steps(model, source, WANTED, asked, search=search, appearance=shown)
    *_, plain = swap_steps(model, source, WANTED, none, search=search, appearance=shown)
    assert last.total == plain.total == STEPS + AGAIN_STEPS
    assert torch.equal(last.target, plain.target)


def test_each_finalist_has_its_noise_and_one_picture_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blending, "limits_of", lambda *given, **told: OTHER)
    model = model_of()
    source = Source(null_text(model, steps=STEPS), subject=SUBJECT)
    settings = replace(TOLD, budget=260)
    found = candidates(settings)
    assert len(found) > 2
    shown, search = shown_in(model), searching()
    steps = list(swap_steps(model, source, WANTED, settings, search=search, appearance=shown))
    rows = [len(step.targets) for step in steps[STEPS:]]
    assert rows == [2 * REDRAWN] * AGAIN_STEPS + [2] * (AGAIN_STEPS + LAST_STEPS - 1) + [1]
    assert len({float(row.sum()) for row in steps[-2].target}) == 2
    assert sum(step.nfe for step in steps) <= evaluations_needed(found, settings) <= 260


def test_a_picture_from_the_photo_has_to_show_the_subject(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = torch.tensor([0.90, 0.80, 0.70, 0.95, 0.88, 0.86, 0.91, 0.93])
    monkeypatch.setattr(ScheduleSearch, "judged", lambda me, model, step: (shown, 1 - shown))
    # Two targets of three candidates each, 0 to 2 and 3 to 5; the last four rows are of the photo.
    step = SwapStep(
        0, 1, 0.0, (0, 2, 3, 5, 0, 2, 3, 5), torch.zeros(8, 1, 2, 2), torch.zeros(8, 1, 2, 2),
        None, (), None, 0,
    )  # fmt: skip
    # At least .87 for the first target, .92 for the second.
    assert searching().recognised(model_of(), step, 3, 4) == [0, 1, 2, 3, 4, 7]


def test_what_two_passes_cost() -> None:
    # 2 rows twice guided for 4 and 3 steps, and 4 pictures in 2 steps of each pass.
    assert polish_evaluations(TOLD, 2, MOST) == 2 * 2 * (4 + 3) + 4 * (2 + 2)
    assert polish_count(replace(TOLD, polish_steps=0.5)) == 3
    assert polish_count(replace(TOLD, polish_steps=5)) == AGAIN_STEPS, "no more than refining"
    assert SwapSettings.filled({"preset": "paper"}, "toybox").polish_steps == 0
    assert SwapSettings.filled({"blend": False}, "toybox").polish_steps == 0
    assert SwapSettings.filled({}).polish_steps == 0
    assert SwapSettings.filled({}, "toybox").polish_steps > 0
