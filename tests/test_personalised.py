"""edit/personalised.py: words in front, a learnt tail behind."""

from __future__ import annotations

import pytest
import torch

from golden_hiper import named, noun_of, sampled_model
from golden_model import GoldenCase, golden_cases
from golden_swaps import apart
from test_swap import SOURCE, model_of, null_text, seeded
from understudy.concept import Concept
from understudy.edit import edit_steps
from understudy.edit.personalised import from_noise, personalised_texts, tail_places
from understudy.errors import PromptError
from understudy.settings import EditSettings


def learnt(model, tail, name="rex", noun="dog") -> Concept:
    return Concept(
        name=name,
        identifier="",
        class_noun=noun,
        kind="hiper",
        base_model=model.name,
        base_fingerprint=model.base_fingerprint,
        tensors={"tail": tail},
    )


@golden_cases("g_hiper")
def test_golden_target_text_and_sample(case: GoldenCase) -> None:
    want, model = case.settings, sampled_model(case)
    rex = learnt(model, case.array("tails")[-1], noun=noun_of(case))
    scale, source = case.get("tail_scale"), case.prompt(text="source_text", emb="source_emb")
    asked = {"method": "hiper", "steps": want["sampling"]["steps"]}
    asked |= {"guidance": want["sampling"]["guidance"]} | ({"tail_scale": scale} if scale else {})
    settings = EditSettings.filled(asked)
    errors = {}
    if case.has("inference_emb"):
        text = personalised_texts(model, [named(case)], [rex], tail_scale=scale)
        errors["text"] = apart(text.tokens, case.array("inference_emb"))
    before = model.nfe
    noise = from_noise(model, case.array("x_T"), source, steps=settings.steps)
    *_, last = edit_steps(model, noise, named(case), settings, concepts=[rex])
    if case.has("sample"):
        errors["sample"] = apart(last.target, case.array("sample"))
    print(case.name, errors, model.nfe - before)
    assert max(errors.values()) < 1e-6
    assert model.nfe - before <= 2 * settings.steps  # the source is not run at all


def test_a_tail_stands_behind_the_words_that_name_it_and_nowhere_else():
    model = model_of()
    tail = torch.full((3, 16), 0.5, dtype=torch.float64)
    rex = learnt(model, tail)
    prompts = ["a photo of {rex}", "a photo of bear"]
    text = personalised_texts(model, prompts, [rex], tail_scale=2.0)
    assert torch.equal(text.tokens[0, 74:], 2 * tail)
    plain = model.embed(["a photo of dog"]).tokens
    assert torch.equal(text.tokens[0, :74], plain[0, :74])
    assert text[1:].equals(model.embed(["a photo of bear"]))
    assert tail_places(text, prompts, [rex]) == [range(74, 77), range(77, 77)]
    scaled = personalised_texts(model, prompts[:1], [rex]).tokens[0, 74:]
    assert torch.equal(scaled, 0.8 * tail)


def test_a_tail_that_no_prompt_names_is_an_error_that_shows_how():
    model = model_of()
    rex = learnt(model, torch.zeros(3, 16))
    with pytest.raises(PromptError, match=r"Write \{rex\} in the target instead of 'dog'"):
        personalised_texts(model, ["a photo of dog"], [rex])


def test_source_attention_never_reaches_the_tail():
    """With all maps taken in all steps, a tail still makes the difference it makes."""
    model = model_of()
    inversion = null_text(model, steps=2)
    settings = EditSettings(
        method="hiper", steps=2, guidance=4.0, cross_map_steps=2, self_map_steps=0
    )
    ends = []
    for value in (0.0, 3.0):
        rex = learnt(model, torch.full((3, 16), value, dtype=torch.float64), noun="cat")
        target = SOURCE.replace("cat", "{rex}")
        *_, last = edit_steps(model, inversion, target, settings, concepts=[rex])
        ends.append(last.target)
    assert not torch.allclose(ends[0], ends[1], atol=1e-4)


def test_noise_without_a_photo_is_a_source_too():
    model = model_of()
    source = from_noise(model, seeded(model).noise, SOURCE, steps=2)
    assert source.path is None and source.steps == 2 and source.prompt == SOURCE
    source.check(model, SOURCE)
