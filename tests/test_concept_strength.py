"""A concept's strength: written in prompts and swaps, and applied to every sort of its tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from test_concept_kinds import CONV, EMBEDDING, concept_of, low_rank, rows
from tiny import tiny_model
from understudy.concept import Concept, applied, embedded, named_parameters, spelled, with_strengths
from understudy.concept.value import strengths_in
from understudy.errors import InputError, PromptError
from understudy.jobs.subjects import split
from understudy.models.unet.stable_diffusion import StableDiffusion


@pytest.fixture(scope="module")
def model() -> StableDiffusion:
    return tiny_model()


def difference(model: StableDiffusion) -> Concept:
    change = torch.randn(
        model.unet.conv_in.weight.shape, generator=torch.Generator().manual_seed(1)
    )
    return replace(concept_of(model, "dreambooth"), tensors={CONV: change})


def row(model: StableDiffusion) -> Concept:
    return rows(model, [model.tokenize("sks").ids[1]])


@pytest.mark.parametrize("make", [difference, low_rank, row])
def test_strength_scales_the_change(model: StableDiffusion, make) -> None:
    concept = make(model)
    name = EMBEDDING if make is row else CONV
    before = named_parameters(model)[name].detach().clone()
    with applied(model, concept):
        whole = named_parameters(model)[name] - before
    assert bool(whole.abs().max() > 0.1)
    for strength in (0.0, 0.5, 1.2):
        with applied(model, replace(concept, strength=strength)):
            change = named_parameters(model)[name] - before
        torch.testing.assert_close(change, strength * whole, rtol=1e-4, atol=1e-5)
    assert torch.equal(named_parameters(model)[name], before)


def test_a_tail_is_moved_towards(model: StableDiffusion) -> None:
    tail = torch.randn(3, 16, generator=torch.Generator().manual_seed(2))
    concept = replace(concept_of(model, "hiper"), tensors={"tail": tail})
    plain, whole = model.embed(["a cat"]), embedded(model, ["a {rex}"], concept)
    half = embedded(model, ["a {rex:0.5}"], replace(concept, strength=0.5))
    torch.testing.assert_close(half.tokens, (plain.tokens + whole.tokens) / 2)
    assert embedded(model, ["a {rex:0}"], replace(concept, strength=0.0)).equals(plain)


def test_strengths_are_read_from_prompts(model: StableDiffusion) -> None:
    rex, tom = low_rank(model), replace(low_rank(model), name="tom", identifier="zwx")
    assert strengths_in("a {rex:0.7} and {tom}, {rex: 0.7}") == {"rex": 0.7, "tom": 1.0}
    assert spelled("a {rex:0.7} and a {tom}", rex, tom) == "a sks cat and a zwx cat"
    found = with_strengths((rex, tom), ["a {rex:0.7}", "a cat", "the {rex:0.7}"])
    assert [one.strength for one in found] == [0.7, 1.0]
    both = replace(rex, also={"rob": "zwx dog"})
    assert with_strengths([both], ["{rob:0.5}"])[0].strength == 0.5


@pytest.mark.parametrize(
    "prompts",
    [["{rex:2.5}"], ["{rex:-1}"], ["{rex:much}"], ["{rex:}"], ["{rex} and {rex:0.5}"],
     ["{rex:0.5}", "{rex}"]],
)  # fmt: skip
def test_other_strengths_are_refused(model: StableDiffusion, prompts: list[str]) -> None:
    with pytest.raises(PromptError, match=r"strength"):
        with_strengths([low_rank(model)], prompts)


def test_a_strength_that_is_not_applied_is_refused(model: StableDiffusion) -> None:
    with pytest.raises(PromptError, match=r"strength 0\.5.*applied at 1"):
        embedded(model, ["a {rex:0.5}"], low_rank(model))


def test_strength_is_of_a_use_and_not_saved(model: StableDiffusion, tmp_path: Path) -> None:
    saved = replace(low_rank(model), strength=0.5).save(tmp_path / "rex")
    assert Concept.load(saved).strength == 1


def test_a_swap_may_have_a_strength() -> None:
    assert split("cat=rex:0.7").strength == 0.7 and split("cat=rex:0.7").concept == "rex"
    assert split("cat#2=store/rex").strength == 1 and split("cat#2=store/rex").occurrence == 1
    for bad in ("cat=rex:3", "cat=rex:1.2.3"):
        with pytest.raises(InputError, match="strength"):
            split(bad)
