"""swap/: whatever is left out or shared, the target is what the plain method gives."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product

import pytest
import torch

from benchmarks.plain import Plain, plain_swap
from cases import few
from golden_swaps import as_published
from tiny import tiny_model
from understudy.diffusion.sampler import starting_noise
from understudy.errors import InputError, PromptError
from understudy.invert.direct import direct_steps
from understudy.invert.inversion import Inversion, ddim_inversion_steps
from understudy.invert.negative_prompt import negative_prompt_steps
from understudy.invert.null_text import null_text_steps
from understudy.settings import InvertSettings, SwapSettings
from understudy.swap.photoswap import swap, swap_steps
from understudy.swap.subjects import with_replacements
from understudy.transfer.blend import Blend
from understudy.transfer.loop import alignment, replay_steps
from understudy.transfer.schedule import SwapSchedule, first_steps
from understudy.transfer.source_target import Replacement, Target

PAPER = SwapSettings.filled({"preset": "paper"})
SOURCE, TARGET = "a photo of cat on the beach", "a photo of sks dog on the beach"
STEPS = 6


def model_of(kind: str = "sd15", **how):
    model = tiny_model(kind, **({"dtype": torch.float64} | how))
    # Larger attention weights, so that maps differ from row to row as in a trained network.
    with torch.no_grad():
        for name, weight in model.unet.named_parameters():
            if name.endswith(("to_q.weight", "to_k.weight")):
                weight.mul_(6)
    return model


def size_of(model, width: int = 16):
    return (model.latent_channels, 16, width)


def seeded(model, width: int = 16, steps: int = STEPS, guidance: float = 4.0) -> Inversion:
    return Inversion(
        method="seed",
        prompt=SOURCE,
        model=model.name,
        fingerprint=model.fingerprint,
        guidance=guidance,
        times=model.schedule.times(steps),
        picture="",
        trajectory=starting_noise([3], size_of(model, width), like=model).to(model.dtype),
    )


INVERTED: dict[object, Inversion] = {}


def null_text(model, width: int = 16, steps: int = STEPS, guidance: float = 4.0) -> Inversion:
    """A noise picture inverted, once for all models of equal weights and precision."""
    asked = (model.fingerprint, model.dtype, width, steps, guidance)
    if asked not in INVERTED:
        INVERTED[asked] = inverted(model, width, steps, guidance)
    return INVERTED[asked]


def inverted(model, width: int, steps: int, guidance: float) -> Inversion:
    photo = 0.5 * starting_noise([5], size_of(model, width), like=model).to(model.dtype)
    how = InvertSettings(steps=steps, guidance=guidance, inner_steps=2)
    *_, last = null_text_steps(model, photo, SOURCE, how)
    return last.inversion


def plainly(kind, inversion, schedule, *, map_tokens=1024, blend=None, guidance=4.0):
    model = model_of(kind)
    nulls = [inversion.uncond(i) for i in range(inversion.steps)]
    nulls = [model.embed([""]) if null is None else null for null in nulls]
    plain = Plain(schedule, alignment(model, SOURCE, TARGET), map_tokens)
    return plain_swap(
        model,
        inversion.noise,
        nulls,
        (SOURCE, TARGET),
        plain,
        guidance=guidance,
        times=inversion.times,
        blend=blend,
    )


SCHEDULES = {
    "paper": first_steps(STEPS, 2, 4, 3),
    "phi": first_steps(STEPS, STEPS, 0, 0),
    "m": first_steps(STEPS, 0, STEPS, 0),
    "a": first_steps(STEPS, 0, 0, STEPS),
    "none": first_steps(STEPS, 0, 0, 0),
    "official": as_published(STEPS, 0.5, 0.3, 0.9),
    "late": SwapSchedule(STEPS, range(1, 2), range(2, 4), range(3, 5)),
}


@cache
def plain_one(name):
    """The plain swap of a schedule, for its two tests."""
    return plainly("sd15", null_text(model_of()), SCHEDULES[name])


@pytest.mark.parametrize(
    "name, stored",  # whether the path of the source is stored, or walked again
    few(product(SCHEDULES, (False, True)),
        [*((name, False) for name in SCHEDULES), ("paper", True), ("late", True)]),
)  # fmt: skip
def test_every_schedule_is_the_plain_one(name, stored):
    model, schedule = model_of(), SCHEDULES[name]
    inversion, expected = null_text(model), plain_one(name)
    used = inversion if stored else replace(inversion, replay=None, first_output=None)
    steps = list(replay_steps(model, used, (TARGET,), schedule, guidance=4.0))
    for step, (source, target) in zip(steps, expected, strict=True):
        assert torch.allclose(step.target[0], target, rtol=0, atol=1e-9)
        assert step.source is None or torch.allclose(step.source[0], source, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("kind", "width"), [("sd15", 24), ("sd21", 24), ("toy", 16)])
def test_other_models_and_sizes_swap_alike(kind, width):
    model, schedule = model_of(kind), SCHEDULES["paper"]
    inversion = seeded(model, width)
    expected = plainly(kind, inversion, schedule, map_tokens=64)
    *_, last = replay_steps(model, inversion, (TARGET,), schedule, guidance=4.0, map_tokens=64)
    assert torch.allclose(last.target[0], expected[-1][1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("stored", [False, True], ids=["walked", "stored"])
def test_a_blend_by_words_is_the_plain_one(stored):
    model, schedule = model_of(), SCHEDULES["paper"]
    inversion = null_text(model, width=24)
    cells = 16 * 24
    expected = plainly("sd15", inversion, schedule, blend=(2, cells, (4,), (4, 5)))
    used = inversion if stored else replace(inversion, replay=None, first_output=None)
    blend = Blend(2, (4,), ((4, 5),))
    steps = list(replay_steps(model, used, (TARGET,), schedule, guidance=4.0, blend=blend))
    assert [step.mask is None for step in steps] == [True, True] + [False] * 4
    assert 0 < steps[-1].mask.mean() < 1
    for step, (source, target) in zip(steps, expected, strict=True):
        assert torch.allclose(step.target[0], target, rtol=0, atol=1e-9)
        assert torch.allclose(step.source[0], source, rtol=0, atol=1e-9)


def test_targets_in_one_run_are_what_they_are_alone():
    model, schedule = model_of(), SCHEDULES["paper"]
    inversion, others = null_text(model), (TARGET, "a photo of red bear in the beach")
    blend = Blend(2, (4,), ((4, 5), (4,)))
    *_, both = replay_steps(model, inversion, others, schedule, guidance=4.0, blend=blend)
    for n, other in enumerate(others):
        alone = replace(blend, target_places=(blend.target_places[n],))
        *_, last = replay_steps(model, inversion, (other,), schedule, guidance=4.0, blend=alone)
        assert torch.allclose(both.target[n], last.target[0], rtol=0, atol=1e-9)


def test_the_source_prompt_as_target_gives_the_source():
    model = model_of()
    inversion = null_text(model)
    *_, last = replay_steps(model, inversion, (SOURCE,), SCHEDULES["paper"], guidance=4.0)
    assert torch.allclose(last.target, inversion.replay[-1:], rtol=0, atol=1e-9)


def test_negative_prompt_needs_three_rows_and_is_the_plain_one():
    model, schedule = model_of(), first_steps(STEPS, 3, STEPS, 3)
    photo = 0.5 * starting_noise([5], size_of(model), like=model).to(model.dtype)
    *_, made = negative_prompt_steps(model, photo, SOURCE, steps=STEPS)
    expected = plainly("sd15", made.inversion, schedule)
    steps = list(replay_steps(model, made.inversion, (TARGET,), schedule, guidance=4.0))
    assert torch.allclose(steps[-1].target[0], expected[-1][1], rtol=0, atol=1e-9)
    assert [step.nfe for step in steps] == [2] + [3] * (STEPS - 1)


def test_without_guidance_there_are_no_unconditional_rows():
    model, schedule = model_of(), SCHEDULES["paper"]
    inversion = seeded(model)
    expected = plainly("sd15", inversion, schedule, guidance=1.0)
    steps = list(replay_steps(model, inversion, (TARGET,), schedule, guidance=1.0))
    assert torch.allclose(steps[-1].target[0], expected[-1][1], rtol=0, atol=1e-9)
    assert [step.nfe for step in steps] == [2, 2, 2, 2, 1, 1]


CAT = (Replacement("cat", "sks dog"),)


def test_a_given_mask_keeps_the_outside_as_the_source_exactly():
    model = tiny_model("sd15")
    inversion = null_text(model, guidance=7.5)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:24, 8:24] = 1
    settings = replace(PAPER, steps=STEPS, self_output_steps=1, self_map_steps=2, cross_map_steps=2)
    *_, last = swap_steps(model, inversion, Target(TARGET, mask=mask), settings)
    kept = last.mask[0, 0] == 0
    assert torch.equal(last.target[0][:, kept], inversion.replay[-1][:, kept])
    assert not torch.equal(last.target[0], inversion.replay[-1])
    blended = replace(settings, blend=True)
    *_, both = swap_steps(model, inversion, Target(TARGET, CAT, mask), blended)
    assert (both.mask <= last.mask).all()


def test_a_swap_ends_in_pictures():
    model = tiny_model("toy", dtype=torch.float32)
    inversion = null_text(model, guidance=7.5)
    settings = replace(PAPER, steps=STEPS)
    pictures = swap(model, inversion, [TARGET, TARGET], settings)
    assert pictures.shape == (2, 3, 64, 64)
    assert torch.allclose(pictures[0], pictures[1], atol=1e-5)


def test_a_swap_without_settings_takes_steps_and_guidance_of_the_inversion():
    model = model_of()
    inversion = null_text(model, steps=3, guidance=2.0)
    *_, last = swap_steps(model, inversion, TARGET)
    assert last.total >= 3
    assert swap(model, inversion, TARGET).shape[0] == 1


def test_two_subjects_each_with_an_actor_of_its_own():
    model = tiny_model("sd15", dtype=torch.float64)
    prompt = "a photo of cat on dog in cat"
    replacements = (Replacement("cat", "sks cat", 1), Replacement("dog", "bear"))
    target = with_replacements(prompt, replacements)
    photo = 0.5 * starting_noise([5], size_of(model), like=model).to(model.dtype)
    *_, made = direct_steps(model, photo, prompt, steps=STEPS)
    settings = replace(PAPER, steps=STEPS, blend=True)
    how = {"guidance": 7.5, "blend": Blend(1, (6, 8), ((6, 8, 9),))}
    *_, last = swap_steps(model, made.inversion, Target(target, replacements), settings)
    plan = first_steps(STEPS, 10, 25, 20)
    *_, expected = replay_steps(model, made.inversion, (target,), plan, **how)
    assert torch.equal(last.target, expected.target)
    assert torch.equal(last.mask, expected.mask)


def test_what_does_not_fit_is_refused_by_name():
    model = tiny_model("sd15")
    inversion = null_text(model, guidance=7.5)
    settings = replace(PAPER, steps=STEPS)

    def swapped(target=TARGET, settings=settings, inversion=inversion, words=()):
        return swap_steps(model, inversion, Target(target, words), settings)

    with pytest.raises(InputError, match="inverted in 6 steps.*--steps 50"):
        swapped(settings=PAPER)
    with pytest.raises(InputError, match="guidance 7.5.*--guidance 3"):
        swapped(settings=replace(settings, guidance=3.0))
    with pytest.raises(InputError, match='"other"'):
        swapped(inversion=replace(inversion, model="other", fingerprint="0" * 64))
    with pytest.raises(PromptError, match="bear.*words are: a, photo, of, cat"):
        swapped(words=(Replacement("bear", "dog"),))
    with pytest.raises(PromptError, match="bear.*sks, dog"):
        swapped(words=(Replacement("cat", "bear"),))
    with pytest.raises(PromptError, match="75"):
        swapped(target="cat " * 80)
    with pytest.raises(InputError, match="words, or give a mask"):
        swapped(settings=replace(settings, blend=True))


def test_closing_a_swap_early_is_fine():
    model = tiny_model("sd15")
    *_, made = ddim_inversion_steps(
        model, starting_noise([1], size_of(model), like=model), SOURCE, steps=STEPS
    )
    steps = swap_steps(model, made.inversion, TARGET, replace(PAPER, steps=STEPS))
    assert next(iter(steps)).index == 0
    steps.close()
    assert torch.is_grad_enabled()
