"""edit/edit.py: the one door to all methods."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from test_swap import SOURCE, model_of, null_text
from tiny import tiny_model
from understudy.concept import Concept, applied
from understudy.edit import WordEdits, edit, edit_steps
from understudy.edit.edit import UNINVERTED
from understudy.errors import InputError, PromptError
from understudy.invert.direct import direct_steps
from understudy.invert.inversion import ddim_inversion_steps
from understudy.invert.negative_prompt import negative_prompt_steps
from understudy.invert.source import SourceFeatures
from understudy.settings import EDIT_METHODS, EditSettings
from understudy.settings.edit import PRESETS
from understudy.transfer.source_target import Replacement, Source, Target

TARGET = "a photo of red dog on the beach"
STEPS = 2


def settings(method: str = "p2p", **how) -> EditSettings:
    how = {"steps": STEPS, "guidance": 4.0, "inversion_steps": 0, "negative": ""} | how
    return EditSettings.filled({"method": method, **how})


@pytest.mark.parametrize("method", [m for m in EDIT_METHODS if m not in (*UNINVERTED, "kv-edit")])
def test_every_method_edits_every_inversion(method):
    model = model_of()
    made = [null_text(model, steps=STEPS)]
    photo = made[0].trajectory[:1]
    for steps in (ddim_inversion_steps, negative_prompt_steps, direct_steps):
        *_, last = steps(model, photo, SOURCE, steps=STEPS)
        made.append(last.inversion)
    ends = []
    for inversion in made:
        before = model.nfe
        steps = list(edit_steps(model, inversion, TARGET, settings(method)))
        assert [step.index for step in steps] == [0, 1] and steps[-1].total == STEPS
        assert sum(step.nfe for step in steps) == model.nfe - before
        ends.append(steps[-1].target)
    assert not torch.allclose(ends[0], ends[1])  # null embeddings, or their absence
    assert all(bool(end.isfinite().all()) for end in ends)


def test_an_edit_ends_in_pictures():
    model = tiny_model("toy", dtype=torch.float32)
    inversion = null_text(model, steps=STEPS)
    for method in ("p2p", "pnp"):
        pictures = edit(model, inversion, [TARGET, SOURCE], settings(method))
        assert pictures.shape == (2, 3, 64, 64)


@pytest.mark.parametrize("method", ["p2p", "pnp"])
def test_a_concept_is_worn_and_its_phrase_said(method):
    model = model_of()
    change = torch.randn(16, 4, 3, 3, generator=torch.Generator().manual_seed(0)).half()
    rex = Concept(
        name="rex",
        identifier="sks",
        class_noun="dog",
        kind="dreambooth",
        base_model=model.name,
        base_fingerprint=model.base_fingerprint,
        tensors={"unet.conv_in.weight": change},
    )
    with applied(model, rex):
        inversion = null_text(model, steps=STEPS)
        named = "a photo of {rex} on the beach"
        *_, last = edit_steps(model, inversion, named, settings(method), concepts=[rex])
        spelled = "a photo of sks dog on the beach"
        *_, same = edit_steps(model, inversion, spelled, settings(method))
    assert torch.equal(last.target, same.target)
    with pytest.raises(InputError, match="same concepts applied"):
        edit_steps(model, inversion, TARGET, settings(method))


RED, DOG = (Replacement("cat", "red dog"),), (Replacement("cat", "dog"),)


def test_words_do_what_they_say():
    model = model_of()
    inversion = null_text(model, steps=STEPS)

    def last(target=TARGET, blend=(), **how):
        words = WordEdits(**how) if how else None
        *_, step = edit_steps(model, inversion, Target(target, blend), settings(), words=words)
        return step

    plain = last()
    assert not torch.allclose(last(weights={"red": 4.0}).target, plain.target)
    assert torch.equal(last(weights={"red": 1.0}).target, plain.target)
    assert not torch.allclose(last(windows={"dog": (0.9, 1.0), "beach": 0.0}).target, plain.target)
    blended = last(blend=RED)
    assert blended.mask is not None and 0 < blended.mask.mean() <= 1
    kept = last(blend=RED, preserve=("beach",))
    assert (kept.mask <= blended.mask).all()
    outside = kept.mask[0, 0] == 0
    assert torch.equal(kept.target[0][:, outside], inversion.path[-1][:, outside])


def test_fresh_noise_is_the_seeds_and_leaves_the_source_alone():
    model = model_of()
    inversion = null_text(model, steps=STEPS)

    def last(**how):
        *_, step = edit_steps(model, inversion, Target(TARGET, RED), settings(**how))
        return step

    plain, stirred = last(), last(eta=1.0)
    assert torch.equal(stirred.target, last(eta=1.0).target)
    assert not torch.allclose(stirred.target, plain.target)
    assert not torch.allclose(stirred.target, last(eta=1.0, noise_seed=1).target)
    assert torch.equal(last(noise_seed=1).target, plain.target)
    outside = stirred.mask[0, 0] == 0
    assert torch.equal(stirred.target[0][:, outside], inversion.path[-1][:, outside])


def test_later_edits_run_no_source_rows_whatever_their_limit():
    model = model_of()
    inversion, features = null_text(model, steps=STEPS), SourceFeatures()

    def edited(target, given, features=None):
        source = Source(inversion, features)
        steps = list(edit_steps(model, source, Target(target, DOG), given))
        return steps[-1].target, sum(step.nfe for step in steps)

    small, large = (settings(self_map_side=s, self_map_steps=STEPS) for s in (8, 16))
    edited(TARGET, small, features)
    other = "a photo of blue dog on the beach"
    later, rows = edited(other, large, features)
    plain, more = edited(other, large)
    assert torch.allclose(later, plain, rtol=0, atol=1e-9)
    assert rows == 2 * STEPS - 1 < more  # the first unconditional noise is known


def test_presets_are_sets_of_values_in_proportion_to_the_steps():
    assert set(PRESETS) == set(EDIT_METHODS)
    made = EditSettings.filled({"steps": 25, "preset": "paper"})
    assert (made.cross_map_steps, made.self_map_steps, made.self_map_side) == (20, 10, 16)
    made = EditSettings.filled({"method": "pnp", "steps": 10, "self_map_steps": 1})
    assert (made.self_map_steps, made.feature_steps, made.inversion_steps) == (1, 8, 999)
    assert made.negative.startswith("ugly")
    assert EditSettings.filled({"method": "hiper"}).tail_scale == 0.8
    assert EditSettings.filled({"method": "pnp"}, "toybox").inversion_steps == 0


def test_what_does_not_fit_is_refused_by_name():
    model = tiny_model("sd15")
    inversion = null_text(model, steps=STEPS, guidance=7.5)
    given = settings(guidance=7.5)

    def edited(target=TARGET, given=given, blend=(), **words):
        told = WordEdits(**words) if words else None
        return edit_steps(model, inversion, Target(target, blend), given, words=told)

    with pytest.raises(InputError, match="inverted in 2 steps.*--steps 50"):
        edited(given=replace(given, steps=50))
    with pytest.raises(InputError, match="guidance 7.5.*--guidance 3"):
        edited(given=replace(given, guidance=3.0))
    for how in (
        {"weights": {"bear": 2.0}},
        {"windows": {"bear": 0.5}},
        {"blend": (Replacement("cat", "bear"),)},
    ):
        with pytest.raises(PromptError, match="bear.*words are: a, photo, of, red, dog"):
            edited(**how)
    with pytest.raises(PromptError, match="bear.*words are: a, photo, of, cat"):
        edited(blend=(Replacement("bear", "dog"),))
    with pytest.raises(PromptError, match="snow.*beach"):
        edited(blend=DOG, preserve=("snow",))
    with pytest.raises(InputError, match="--preserve excludes words from the area of --blend"):
        edited(preserve=("beach",))
    with pytest.raises(InputError, match="pnp has no options for single words"):
        edited(given=settings("pnp"), weights={"dog": 2.0})
    with pytest.raises(PromptError, match="equally many words"):
        edited(given=replace(given, alignment="replace"))
    with pytest.raises(PromptError, match="75"):
        edited(target="cat " * 80)
