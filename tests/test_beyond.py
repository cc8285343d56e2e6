"""A crown or a hat that the old subject lacks: found above its outline, drawn, and pasted."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from test_appearance import SUBJECT, shown_in
from test_polish import searching
from test_refine import SETTINGS, STEPS, WANTED
from test_swap import model_of, null_text
from understudy.swap import blending, finish, photoswap
from understudy.swap.beyond import Beyond
from understudy.swap.limits import KEEP, OTHER, SAME, Limits, with_part
from understudy.swap.where import BothSubjects
from understudy.transfer.source_target import Source

BODY = (slice(40, 90), slice(30, 70))  # of 100 x 100 pixels
PHOTO = torch.zeros(1, 3, 100, 100)


def drawn(*boxes: tuple[slice, slice]) -> Tensor:
    mask = torch.zeros(1, 1, 100, 100)
    for rows, columns in boxes:
        mask[..., rows, columns] = 1
    return mask


def beyond(new: Tensor, shown: Tensor = PHOTO, limits: Limits = SAME) -> Tensor:
    return BothSubjects(drawn(BODY), new).beyond(shown, PHOTO, limits)[0, 0]


def test_a_hat_counts_where_it_stands_above_the_old_outline() -> None:
    hat = (slice(25, 40), slice(44, 56))
    found = beyond(drawn(BODY, hat))
    assert torch.equal(found, drawn((slice(25, 37), slice(44, 56)))[0, 0]), "3 pixels are the rim"
    assert not beyond(drawn(BODY, hat), limits=KEEP).any()
    assert not beyond(drawn(BODY, hat), limits=OTHER).any(), "it is free of the outline anyway"


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ((slice(45, 60), slice(70, 90)), "an arm beside the old subject"),
        ((slice(90, 98), slice(44, 56)), "a shadow below it"),
        ((slice(25, 40), slice(48, 51)), "a thin line"),
        ((slice(32, 40), slice(48, 53)), "a speck"),
    ],
)
def test_what_is_not_a_part_above_the_old_outline(part: tuple[slice, slice], why: str) -> None:
    assert not beyond(drawn(BODY, part)).any(), why


def test_a_part_ends_near_the_old_subject() -> None:
    found = beyond(drawn(BODY, (slice(0, 40), slice(44, 56))))
    assert found[20:37, 44:56].all() and found.sum() == 17 * 12


def test_a_hat_that_its_words_miss_shows_by_its_colours() -> None:
    shown = PHOTO.clone()
    shown[..., 25:40, 44:56] = 1
    shown[..., 22:36, 60:70] = 1  # something else that has changed
    found = beyond(drawn(BODY), shown)
    assert torch.equal(found, drawn((slice(25, 37), slice(44, 56)))[0, 0])


def test_a_subject_that_was_not_found_has_no_parts() -> None:
    assert not beyond(torch.ones(1, 1, 100, 100)).any()


def test_it_is_pasted_with_its_rim_and_nothing_else_is() -> None:
    both = BothSubjects(drawn(BODY), drawn(BODY, (slice(25, 40), slice(44, 56))))
    plain = BothSubjects(drawn(BODY), drawn(BODY)).reached(PHOTO, PHOTO, SAME)
    wanted = plain.maximum(drawn((slice(23, 40), slice(42, 58))))
    assert torch.equal(both.reached(PHOTO, PHOTO, SAME), wanted)
    assert both.reached(PHOTO, PHOTO, KEEP)[..., :37, :].sum() == 0


def test_refining_draws_the_old_outline_and_the_part() -> None:
    old, hat = drawn(BODY), drawn((slice(24, 36), slice(44, 56)))
    both, cells = BothSubjects(old, torch.ones_like(old)), torch.ones(1, 1, 25, 25)
    narrow = both.cells(cells, SAME, torch.zeros_like(old))[0, 0]
    wanted = torch.zeros(25, 25)
    wanted[9:24, 6:19] = 1  # cells 10 to 22 and 7 to 17, and one around them
    assert torch.equal(narrow, wanted)
    wanted[5:10, 10:15] = 1
    assert torch.equal(both.cells(cells, SAME, hat)[0, 0], wanted)
    assert both.cells(cells, OTHER, hat).all(), "there the whole new subject counts"


def test_rows_of_a_target_share_the_largest_part() -> None:
    small, large, none = drawn((slice(0, 4), slice(0, 4))), drawn(BODY), drawn()
    latents = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 2, 25, 25)
    found = Beyond.shared(torch.cat([small, large, none, none]), latents, [0, 0, 0, 1])
    assert found is not None
    assert torch.equal(found.parts, torch.cat([large, large, large, none]))
    assert found.drawn[:, 0, 0, 0].tolist() == [1, 1, 1, 3]
    assert Beyond.shared(torch.cat([none, none]), latents[:2], [0, 1]) is None


def test_the_photo_s_latents_with_a_part() -> None:
    found = Beyond(drawn((slice(20, 24), slice(40, 44))), torch.ones(1, 2, 25, 25))
    latents = found.on(torch.zeros(1, 2, 25, 25))
    wanted = torch.zeros(1, 2, 25, 25)
    wanted[..., 4:7, 9:12] = 1  # cell 5, 10 with 3 pixels around it
    assert torch.equal(latents, wanted)
    source = Source(null_text(model_of(), steps=2), subject=drawn(BODY))
    place = found.added_to(source).subject
    assert place is not None and place.sum() == drawn(BODY).sum() + 10 * 10
    assert found.added_to(replace(source, subject=None)).subject is None


def test_a_part_is_held_less_by_the_source_and_weighs_the_layout_less() -> None:
    assert with_part(SAME).held == SAME.held / 2 and with_part(SAME).layout < SAME.layout
    assert with_part(SAME).above == SAME.above, "all else stays"


def test_a_swap_that_shows_a_part_draws_it_in_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blending, "limits_of", lambda *given, **told: SAME)
    model = model_of()
    source = Source(null_text(model, steps=STEPS), subject=SUBJECT)
    settings = replace(SETTINGS, where="subject", refine_steps=4, appearance_steps=2, budget=200)
    part = torch.zeros_like(SUBJECT)
    part[..., 3:7, 10:20] = 1
    monkeypatch.setattr(
        BothSubjects,
        "beyond",
        lambda both, *given: torch.cat([0 * part] * (len(both.new) - 1) + [part]),
    )
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    weights: list[float] = []
    plain, best = finish.refined_steps, finish.ScheduleSearch.best

    def refined(model, source, begun, *given, **told):
        seen.append((begun.target, told["posed"], source.subject))
        assert told["held"] == SAME.held / 2
        return plain(model, source, begun, *given, **told)

    def chosen(search, *given):
        weights.append(search.layout_weight)
        return best(search, *given)

    monkeypatch.setattr(finish, "refined_steps", refined)
    monkeypatch.setattr(finish.ScheduleSearch, "best", chosen)
    search = replace(searching(), layout_weight=SAME.layout)
    wanted = replace(WANTED, mask=None)
    *_, last = photoswap.swap_steps(
        model, source, wanted, settings, search=search, appearance=shown_in(model)
    )
    ((begun, posed, place),) = seen
    assert len(begun) == 2 and torch.equal(begun[0, :, 2, 6], begun[1, :, 2, 6]), "one part for all"
    assert not torch.equal(begun[0, :, 8, 8], begun[1, :, 8, 8])
    clean = source.inversion.clean
    assert clean is not None and torch.equal(posed[:, :, 2, 6], begun[:, :, 2, 6])
    assert torch.equal(posed[0, :, 8, 8], clean[0, :, 8, 8]), "elsewhere the photo"
    assert place[0, 0, 5, 15] == 1 and place[0, 0, 31, 15] == SUBJECT[0, 0, 31, 15]
    assert weights[0] == SAME.layout and weights[-1] == with_part(SAME).layout
    assert last.mask is not None and last.mask[0, 0, 2, 6] == 1
