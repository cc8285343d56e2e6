"""Where two prompts disagree: found on a model that says so, counted, and used by a swap."""

import numpy as np
import pytest
import torch

from tiny import tiny_model
from understudy.diffusion.sampler import starting_noise
from understudy.diffusion.text import Text
from understudy.invert.invert import invert
from understudy.settings import InvertSettings, SwapSettings
from understudy.swap import limits, where
from understudy.swap.blending import blend_of
from understudy.swap.difference import difference_mask, differences
from understudy.swap.photoswap import swap
from understudy.swap.subjects import subjects_named
from understudy.swap.where import may_change
from understudy.transfer.source_target import Replacement, Source, Target


def opinionated(monkeypatch: pytest.MonkeyPatch):
    """A model whose noise estimate is the prompt's length, inside a box only."""
    model = tiny_model()

    def predict(latents, time, text, control=None):
        noise = 0.01 * latents
        noise[:, :, 4:8, 2:6] += text.tokens[:, :1, :1, None]
        return noise

    def embed(prompts):
        return Text(torch.tensor([[[float(len(prompt))]] for prompt in prompts]))

    monkeypatch.setattr(model, "predict", predict)
    monkeypatch.setattr(model, "embed", embed)
    return model


def test_the_mask_is_where_the_estimates_differ_and_a_rim(monkeypatch: pytest.MonkeyPatch) -> None:
    model = opinionated(monkeypatch)
    found = differences(model, torch.randn(1, 4, 12, 12), "a cat", ["a lion", "a bear on a car"])
    inside = torch.zeros(12, 12)
    inside[4:8, 2:6] = 1
    assert torch.allclose(found[0], inside * 1.0, atol=1e-5)
    assert torch.allclose(found[1], inside * 10.0, atol=1e-5)
    rimmed = torch.zeros(12, 12)
    rimmed[3:9, 1:7] = 1
    assert torch.equal(difference_mask(found), rimmed.expand(2, 1, 12, 12))


def test_what_it_costs_is_counted() -> None:
    model = tiny_model()
    differences(model, torch.zeros(1, 4, 16, 16), "a cat", ["a dog", "a bear"], samples=3)
    assert model.nfe == 3 * 3


def test_one_loud_cell_does_not_decide() -> None:
    found = torch.zeros(1, 16, 16)
    found[0, 4:9, 4:9], found[0, 15, 15] = 1.0, 100.0
    assert difference_mask(found)[0, 0, 5, 5] == 1


def test_prompts_that_agree_leave_everything_open() -> None:
    assert difference_mask(torch.zeros(1, 8, 8)).min() == 1


@pytest.mark.parametrize("how", ["attention", "difference"])
def test_a_swap_keeps_the_photo_outside_the_mask(how: str) -> None:
    model = tiny_model()
    photo = model.decode(starting_noise([1], (4, 16, 16), like=model)).clamp(-1, 1)
    asked = InvertSettings(steps=5, guidance=2.0, inner_steps=2)
    inversion = invert(model, photo, "a cat", asked)
    settings = SwapSettings.filled(
        {"preset": "best", "steps": 5, "guidance": 2.0, "where": how, "budget": 0}
    )
    target = Target("a dog", (Replacement("cat", "dog"),))
    blend = blend_of(model, Source(inversion), (target,), settings)
    assert blend is not None and (blend.mask is None) == (how == "attention")
    if how == "difference":
        stirred = SwapSettings.from_dict({**settings.to_dict(), "eta": 1.0})
        still, fresh, again = (
            swap(model, inversion, target, asked) for asked in (settings, stirred, stirred)
        )
        assert (still - fresh).abs().max() > 1e-3
        assert torch.equal(fresh, again)


def test_specks_are_dropped_and_lesser_subjects_kept() -> None:
    found = torch.zeros(1, 24, 24)
    found[0, 3:9, 3:9] = 1.0  # one subject
    found[0, 14:18, 14:18] = 1.0  # a smaller one, swapped along with it
    found[0, 4, 20] = 3.0  # a speck
    mask = difference_mask(found)[0, 0]
    assert mask[5, 5] == 1 and mask[15, 15] == 1
    assert mask[4, 20] == 0


def test_a_level_of_difference_all_over_the_background_is_not_the_subject() -> None:
    found = torch.full((1, 16, 16), 0.45)
    found[0, 4:9, 4:9] = 1.0
    mask = difference_mask(found)[0, 0]
    assert mask[5, 5] == 1 and mask[12, 12] == 0


def test_a_neighbour_of_the_one_subject_named_is_left_out() -> None:
    found = torch.zeros(1, 24, 24)
    found[0, 3:9, 3:9], found[0, 14:19, 14:19] = 1.0, 0.8
    assert difference_mask(found)[0, 0, 15, 15] == 1
    one = difference_mask(found, parts=1)[0, 0]
    assert one[5, 5] == 1 and one[15, 15] == 0


def test_how_many_subjects_a_prompt_names() -> None:
    prompt = "a cat, a cat and two dogs"
    named = [
        [Replacement("cat", "x")],
        [Replacement("cat", "x", 1)],
        [Replacement("dogs", "x")],
        [],
    ]
    assert [subjects_named(prompt, replacements) for replacements in named] == [2, 1, None, None]


def test_a_swap_may_change_the_subject_and_what_differs_near_it() -> None:
    old = torch.zeros(1, 1, 64, 64)
    old[..., 20:36, 20:36] = 1  # cells 5 to 8 of 16
    difference = torch.zeros(1, 1, 16, 16)
    difference[..., 1, 5], difference[..., 5, 13] = 1, 1  # a hat, and a neighbour
    cells = may_change(old, difference)[0, 0]
    wanted = torch.zeros(16, 16)
    wanted[3:11, 3:11], wanted[1, 5] = 1, 1
    assert torch.equal(cells, wanted)


def test_the_photo_stays_beside_both_subjects(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = torch.zeros(1, 1, 100, 100), torch.zeros(1, 1, 100, 100)
    old[..., 40:60, 40:60], new[..., 20:60, 45:55] = 1, 1
    shown, redrawn = torch.zeros(2, 3, 100, 100), torch.zeros(1, 3, 100, 100)
    shown[..., 48:50, 60:72] = shown[..., 80:90, 80:90] = 1  # a tail that was missed, a neighbour
    found = iter([new, None])
    monkeypatch.setattr(where, "found_by_words", lambda *given: next(found))
    targets = [Target("a sks cat", (Replacement("cat", "sks cat"),))] * 2
    both = where.BothSubjects.found(tiny_model(), old, shown, targets)
    masks = both.reached(shown, redrawn)
    assert masks[0, 0, 18, 50] == 1 and masks[0, 0, 36, 38] == 1  # edges of the new and the old
    assert masks[0, 0, 48, 70] == 1 and masks[0, 0, 85, 85] == 0
    assert masks[0, 0, 30, 30] == 0 and masks[0, 0, 70, 50] == 0
    assert masks[1].min() == 1  # nothing was found: anything may have changed


def test_a_subject_of_the_same_class_takes_the_outline(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [("cat", "sks cat"), ("Cat", "sks cat"), ("grey cat", "sks cat"), ("dog", "sks cat")]
    found = [limits.limits_of("auto", [Replacement(*pair)]) is limits.SAME for pair in words]
    assert found == [True, True, True, False] and limits.limits_of("auto", []) is limits.OTHER
    assert limits.limits_of("keep", []) is limits.KEEP
    assert limits.limits_of("auto", [Replacement(*words[0])], masked=True) is limits.OTHER
    assert limits.limits_of("free", [Replacement(*words[0])]) is limits.OTHER
    old, new = torch.zeros(1, 1, 100, 100), torch.zeros(1, 1, 100, 100)
    old[..., 40:60, 40:60], new[..., 20:60, 45:55] = 1, 1
    shown = torch.zeros(1, 3, 100, 100)
    shown[..., 45:55, 60:75] = 1  # something beside the old subject that the swap drew over
    monkeypatch.setattr(where, "found_by_words", lambda *given: new)
    targets = [Target("a sks cat", (Replacement("cat", "sks cat"),))]
    both = where.BothSubjects.found(tiny_model(), old, shown, targets)
    mask = both.reached(shown, torch.zeros(1, 3, 100, 100), limits.KEEP)[0, 0]
    assert mask[50, 62] == 1 and mask[50, 64] == 0, "three pixels around the old outline"
    assert mask[37, 50] == 1 and mask[30, 50] == 0, "the new subject does not leave it"
    cells = torch.zeros(1, 1, 25, 25)
    cells[..., 5, 12] = 1  # the prompts differ far above
    assert where.may_change(old, cells, limits.KEEP)[0, 0].sum() == 7 * 7
    assert where.may_change(old, cells, limits.SAME)[0, 0].sum() == 9 * 9
    assert where.may_change(old, cells, limits.OTHER)[0, 0].sum() == 9 * 9


def test_the_rim_is_wide_where_the_old_subject_is_bare() -> None:
    old = torch.zeros(1, 1, 100, 100)
    old[..., 40:60, 40:60] = 1
    new = old.clone()
    new[..., 50:60] = 0  # the right half stays bare
    shown = torch.zeros(1, 3, 100, 100)
    mask = where.BothSubjects(old, new).reached(shown, shown, limits.SAME)[0, 0]
    wanted = torch.zeros(100, 100)
    wanted[38:62, 38:62] = 1  # 2 pixels around the old subject
    wanted[37:63, 48:63] = 1  # 3 around what the new one and 1 pixel around it leave bare
    assert torch.equal(mask, wanted)
    whole = where.BothSubjects(old, old).reached(shown, shown, limits.SAME)[0, 0]
    assert whole.sum() == 24 * 24


def test_a_new_subject_is_where_the_old_one_was(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = torch.zeros(1, 1, 100, 100), torch.zeros(1, 1, 100, 100)
    old[..., 40:60, 40:60] = new[..., 30:60, 42:58] = 1
    new[..., 70:90, 80:90] = 1  # a learnt word points at a neighbour, too
    monkeypatch.setattr(where, "found_by_words", lambda *given: new)
    targets = [Target("a sks cat", (Replacement("cat", "sks cat"),))]
    both = where.BothSubjects.found(tiny_model(), old, torch.zeros(1, 3, 100, 100), targets)
    assert both.new[0, 0, 31, 50] == 1 and both.new[0, 0, 80, 85] == 0


def test_bits_of_other_things_are_no_part_of_a_subject() -> None:
    mask = np.zeros((60, 60), np.float32)
    mask[10:40, 10:40], mask[50:54, 50:54], mask[45:55, 5:20] = 0.9, 0.8, 0.9
    mask[20, 41] = 0.3  # a soft edge
    found = where._without_specks(mask)  # pyright: ignore[reportPrivateUsage]
    assert found[52, 52] == 0 and found[50, 10] > 0.5
    assert found[20, 20] == mask[20, 20] and found[20, 41] == mask[20, 41]
