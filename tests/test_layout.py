"""swap/layout.py: for subjects of one class, candidates are drawn on the photo's own layout."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import test_appearance
from benchmarks.plain import TARGET_C, TARGET_U, Plain
from test_appearance import AGAIN_STEPS, READ, SUBJECT, Reader, shown_in
from test_polish import every, searching
from test_refine import MASK, SETTINGS, STEPS, WANTED
from test_swap import SOURCE, TARGET, model_of, null_text
from understudy.diffusion.sampler import starting_noise
from understudy.diffusion.text import Text
from understudy.invert.inversion import Inversion
from understudy.jobs.swap import taken
from understudy.models.interface import DiffusionModel
from understudy.settings import SwapSettings
from understudy.swap import blending, layout, photoswap
from understudy.swap.layout import layout_count, layout_evaluations, layout_steps_needed
from understudy.swap.limits import OTHER, SAME
from understudy.swap.photoswap import swap_steps
from understudy.swap.refine import refined_steps
from understudy.swap.schedule_search import REDRAWN, ScheduleSearch, candidates, evaluations_needed
from understudy.transfer.appearance import COVERED, MOST, SHOWN
from understudy.transfer.blend import Blend
from understudy.transfer.loop import alignment
from understudy.transfer.schedule import SwapSchedule
from understudy.transfer.source_target import Source
from understudy.transfer.step import SwapStep

LAST_STEPS = 3  # of refining what was drawn
TOLD = replace(SETTINGS, refine_steps=AGAIN_STEPS, appearance_steps=READ, layout_steps=LAST_STEPS)


def drawn_plainly(
    model: DiffusionModel, inversion: Inversion, settings: SwapSettings, monkeypatch
) -> Tensor:
    """DDIM from the photo's noise with maps and pictures, written out: every row, all maps whole.

    Of 6 steps 5 take A, 3 take M, and 5 read.
    """
    plan = SwapSchedule(STEPS, range(0), range(3), range(5))
    plain, shown = Plain(plan, alignment(model, SOURCE, TARGET), 1024), shown_in(model)
    monkeypatch.setattr(test_appearance, "READ", 5)
    monkeypatch.setattr(Reader, "begin", 0)
    place = F.adaptive_avg_pool2d(SUBJECT, (16, 16)).flatten() > COVERED
    monkeypatch.setattr(Reader, "inside", place)
    seen = F.adaptive_avg_pool2d(shown.masks, (16, 16)).flatten(1) > SHOWN
    monkeypatch.setattr(Reader, "seen", seen)
    for name, module in model.unet.named_modules():
        if hasattr(module, "set_processor"):
            module.set_processor(Reader(plain, name))
    still = starting_noise([settings.noise_seed] * 2, (4, 16, 16), like=model)
    said = ("", "", SOURCE, TARGET, shown.prompt, shown.prompt)
    texts = Text.cat([model.embed([one]) for one in said])
    schedule, path, x = model.schedule, inversion.path, inversion.noise
    for index in range(STEPS):
        start, end = inversion.times[index : index + 2]
        plain.step, source = index, path[index : index + 1]
        pictures = schedule.noised(shown.latents, still, start)
        rows = model.predict(torch.cat([source, x, source, x, pictures]), start, texts)
        none, told = rows[TARGET_U][None], rows[TARGET_C][None]
        clean, noise = schedule.denoised(x, none + settings.guidance * (told - none), start)
        x = schedule.signal(end) * clean + schedule.noise(end) * noise
        x = path[index + 1 : index + 2] + MASK * (x - path[index + 1 : index + 2])
    return x


def test_a_drawn_picture_equals_the_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the rows of the last step are those of the swap, the drawn one, and this one refined."""
    monkeypatch.setattr(blending, "limits_of", lambda *given, **told: SAME)
    model = model_of()
    inversion = null_text(model, steps=STEPS)
    # Tuned embeddings of the unconditional half are another method's.
    inversion = replace(inversion, null_embeddings=None)
    source, told = Source(inversion, subject=SUBJECT), replace(TOLD, budget=1)
    assert len(candidates(told)) == 1
    shown = shown_in(model)
    for name in ("best", "preferred"):
        monkeypatch.setattr(ScheduleSearch, name, lambda me, model, step, *_: every(step))
    around = Blend(start=0, mask=MASK, clean=inversion.clean)
    monkeypatch.setattr(photoswap, "blend_of", lambda *given: around)
    steps = list(swap_steps(model, source, WANTED, told, search=searching(), appearance=shown))
    total = STEPS + AGAIN_STEPS + STEPS + LAST_STEPS
    assert [step.index for step in steps] == list(range(total))
    assert {step.total for step in steps} == {total}
    last, plain = steps[-1], steps[STEPS + AGAIN_STEPS - 1]
    assert len(last.targets) == REDRAWN + 1 + REDRAWN
    assert torch.equal(last.target[:REDRAWN], plain.target), "the rows that began with the swap"
    with torch.no_grad():
        wanted = drawn_plainly(model_of(), inversion, told, monkeypatch)
    found = steps[STEPS + AGAIN_STEPS + STEPS - 1]
    assert torch.allclose(found.target, wanted, rtol=0, atol=1e-9)
    assert torch.equal(last.target[REDRAWN : REDRAWN + 1], found.target)
    assert torch.equal(last.clean[REDRAWN : REDRAWN + 1], found.target)
    assert last.begun == ("photo", "swap", "layout", "layout", "layout")
    assert taken(last.rows([3]), told) == {
        "self_output_steps": 0, "self_map_steps": 3, "cross_map_steps": 5,
        "noise_seed": told.noise_seed, "began_with": "layout",
    }  # fmt: skip
    assert taken(last.rows([0]), told)["began_with"] == "photo"
    begun = replace(found, mask=last.mask[REDRAWN : REDRAWN + 1])
    short = replace(told, refine_steps=LAST_STEPS)
    *_, refined = refined_steps(
        model, source, begun, [WANTED], short, held=SAME.held, noises=REDRAWN, appearance=shown
    )
    assert torch.equal(last.target[REDRAWN + 1 :], refined.target)
    assert float((refined.target[0] - refined.target[1]).abs().max()) > 0.1


def test_parts_that_the_swap_has_shown_are_in_the_drawn_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    part = torch.zeros_like(SUBJECT)
    part[..., 3:7, 10:20] = 1
    monkeypatch.setattr(blending, "limits_of", lambda *given, **told: SAME)
    monkeypatch.setattr(
        layout.Beyond, "shared", classmethod(lambda cls, parts, latents, _: cls(part, latents))
    )
    monkeypatch.setattr(ScheduleSearch, "preferred", lambda me, model, step, *_: every(step))
    monkeypatch.setattr(ScheduleSearch, "best", lambda me, model, step, *_: every(step))
    model = model_of()
    source = Source(null_text(model, steps=STEPS), subject=SUBJECT)
    told, wanted = replace(TOLD, budget=1, where="subject"), replace(WANTED, mask=None)
    shown, search = shown_in(model), searching()
    steps = list(swap_steps(model, source, wanted, told, search=search, appearance=shown))
    swapped, drawn = steps[STEPS - 1].target, steps[-1].target[REDRAWN]
    assert torch.equal(drawn[:, 2, 6], swapped[0, :, 2, 6])
    assert not torch.equal(drawn[:, 10, 8], swapped[0, :, 10, 8])


@pytest.mark.parametrize(
    "why", ["two classes", "no pictures", "subject not found", "no search", "no path", "0 steps"]
)
def test_without_them_nothing_changes(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    limits = OTHER if why == "two classes" else SAME
    monkeypatch.setattr(blending, "limits_of", lambda *given, **told: limits)
    model = model_of()
    inversion = null_text(model, steps=STEPS)
    inversion = replace(inversion, replay=None) if why == "no path" else inversion
    source = Source(inversion, subject=None if why == "subject not found" else SUBJECT)
    shown = None if why == "no pictures" else shown_in(model)
    search = None if why == "no search" else searching()
    none = replace(TOLD, budget=1, layout_steps=0)
    asked = none if why == "0 steps" else replace(TOLD, budget=1)
    *_, last = swap_steps(model, source, WANTED, asked, search=search, appearance=shown)
    *_, plain = swap_steps(model, source, WANTED, none, search=search, appearance=shown)
    assert last.total == plain.total == STEPS + AGAIN_STEPS
    assert torch.equal(last.target, plain.target)


def test_every_target_has_a_picture_drawn_within_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blending, "limits_of", lambda *given, **told: SAME)
    model = model_of()
    source = Source(null_text(model, steps=STEPS), subject=SUBJECT)
    settings = replace(TOLD, budget=430)
    targets = [WANTED, replace(WANTED, prompt="a photo of a sks dog at the sea")]
    found = candidates(settings, 2)
    assert len(found) > 2
    steps = list(
        swap_steps(model, source, targets, settings, search=searching(), appearance=shown_in(model))
    )
    rows = [len(step.targets) for step in steps[STEPS:]]
    assert rows == [
        *[2 * 2 * REDRAWN] * AGAIN_STEPS,
        *[2] * STEPS,
        *[2 * REDRAWN] * (LAST_STEPS - 1),
        2,
    ]
    assert [number // len(found) for number in steps[-1].targets] == [0, 1]
    assert sum(step.nfe for step in steps) <= evaluations_needed(found, settings, 2) <= 430


def test_a_drawn_picture_is_preferred_if_it_shows_the_subject(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = torch.tensor([0.90, 0.80, 0.70, 0.95, 0.86, 0.84, 0.82, 0.89])
    layout = torch.zeros(8)
    monkeypatch.setattr(ScheduleSearch, "judged", lambda me, model, step: (shown, layout))
    # Two targets of three candidates each, 0 to 2 and 3 to 5; the last four rows are drawn.
    step = SwapStep(
        0, 1, 0.0, (0, 2, 3, 5, 0, 0, 3, 3), torch.zeros(8, 1, 2, 2), torch.zeros(8, 1, 2, 2),
        None, (), None, 0,
    )  # fmt: skip
    # At least .85 for the first target, .90 for the second, which has none.
    assert searching().preferred(model_of(), step, 3, 4) == [2, 3, 4]
    # Of the sum at least .07 less: one of 1.6 times .02 more layout is too much beside .04 less.
    layout[0] = 0.02
    search = replace(searching(), layout_weight=1.6)
    assert search.preferred(model_of(), step, 3, 4) == [0, 1, 2, 3]
    layout[4] = 0.01
    assert search.preferred(model_of(), step, 3, 4) == [2, 3, 4]


def test_what_they_cost() -> None:
    # 6 steps guided, the source's row in 5, 4 pictures in 5; then 2 rows guided for 3 steps, the
    # source's row in 2, 4 pictures in 2.
    drawn, refined = 2 * 6 + 5 + 4 * 5, 2 * 2 * 3 + 2 + 4 * 2
    assert layout_evaluations(TOLD, 1, MOST, 0.6) == drawn + refined
    assert layout_evaluations(replace(TOLD, layout_steps=0), 1, MOST, 0.6) == 0
    assert layout_steps_needed(TOLD) == STEPS + LAST_STEPS
    assert layout_count(replace(TOLD, layout_steps=0.5)) == 3
    assert layout_count(replace(TOLD, layout_steps=5)) == AGAIN_STEPS, "no more than refining"
    assert SwapSettings.filled({"preset": "paper"}, "toybox").layout_steps == 0
    assert SwapSettings.filled({"blend": False}, "toybox").layout_steps == 0
    assert SwapSettings.filled({}).layout_steps == 0
    assert SwapSettings.filled({}, "toybox").layout_steps > 0
