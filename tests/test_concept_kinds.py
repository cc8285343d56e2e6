"""What the sorts of tensors of a concept do: low-rank changes, rows of words, tails of prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tiny import tiny_model
from understudy.concept import Concept, applied, embedded, named_parameters
from understudy.errors import ConceptError, PromptError
from understudy.models.unet.stable_diffusion import StableDiffusion

EMBEDDING = "text_encoder.embeddings.token_embedding.weight"
CONV = "unet.conv_in.weight"


@pytest.fixture(scope="module")
def model() -> StableDiffusion:
    return tiny_model()


def concept_of(model: StableDiffusion, kind: str, name: str = "rex", **tensors: Tensor) -> Concept:
    named = {key.replace("__", "."): tensor for key, tensor in tensors.items()}
    word = "" if kind == "hiper" else "sks"
    fingerprint = model.base_fingerprint
    return Concept(name, word, "cat", kind, model.name, fingerprint, named)


def low_rank(model: StableDiffusion, seed: int = 0) -> Concept:
    random = torch.Generator().manual_seed(seed)
    weight = named_parameters(model)[CONV]
    parts = {
        f"{CONV}.lora_A": torch.randn(2, weight[0].numel(), generator=random),
        f"{CONV}.lora_B": torch.randn(len(weight), 2, generator=random),
        f"{CONV}.alpha": torch.tensor(4.0),
    }
    return replace(concept_of(model, "lora"), tensors=parts)


def rows(model: StableDiffusion, ids: list[int], name: str = "rex") -> Concept:
    learnt = torch.randn(len(ids), 16, generator=torch.Generator().manual_seed(len(name)))
    parts = {f"{EMBEDDING}.rows": learnt, f"{EMBEDDING}.ids": torch.tensor(ids)}
    return replace(concept_of(model, "textual-inversion", name), tensors=parts)


def test_a_low_rank_change_is_alpha_over_rank_times_the_product(model: StableDiffusion) -> None:
    concept, before = low_rank(model), named_parameters(model)[CONV].detach().clone()
    a, b = concept.tensors[f"{CONV}.lora_A"], concept.tensors[f"{CONV}.lora_B"]
    with applied(model, concept, low_rank(model)):
        change = named_parameters(model)[CONV] - before
    torch.testing.assert_close(
        change, 2 * 2.0 * (b @ a).reshape(before.shape), rtol=1e-4, atol=1e-4
    )
    assert torch.equal(named_parameters(model)[CONV], before)


def test_rows_stand_in_the_place_of_their_tokens_alone(model: StableDiffusion) -> None:
    ids = list(model.tokenize("sks zwx").ids[1:3])
    before, concept = named_parameters(model)[EMBEDDING].detach().clone(), rows(model, ids)
    others = model.embed(["a photo of a cat"])
    with applied(model, concept):
        now = named_parameters(model)[EMBEDDING]
        assert torch.equal(now[ids], concept.tensors[f"{EMBEDDING}.rows"])
        kept = [i for i in range(len(before)) if i not in ids]
        assert torch.equal(now[kept], before[kept])
        assert model.embed(["a photo of a cat"]).equals(others)
    assert torch.equal(named_parameters(model)[EMBEDDING], before)
    assert concept.phrase == "sks"


def test_two_concepts_cannot_have_the_same_word(model: StableDiffusion) -> None:
    one, two = model.tokenize("sks zwx").ids[1:3]
    with applied(model, rows(model, [one]), rows(model, [two], "mia")):
        pass
    with pytest.raises(ConceptError, match="'rex' and 'mia'.*--identifier"):
        with applied(model, rows(model, [one]), rows(model, [one], "mia")):
            pass


def test_a_tail_goes_behind_the_prompts_that_name_it(model: StableDiffusion) -> None:
    tail = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    rex = concept_of(model, "hiper", tail=tail)
    mia = replace(concept_of(model, "hiper", "mia", tail=tail[:2]), record={"tail_scale": 0.5})
    prompts = ["a photo of a {rex}", "a photo of a cat", "a {mia} and a {rex}"]
    text = embedded(model, prompts, mia, rex).tokens
    plain = model.embed(["a photo of a cat", "a photo of a cat", "a cat and a cat"]).tokens
    assert torch.equal(text[1], plain[1]) and rex.phrase == "cat"
    assert torch.equal(text[0, :-5], plain[0, :-5])
    torch.testing.assert_close(text[0, -5:], 0.8 * tail)
    torch.testing.assert_close(text[2, -7:], torch.cat([0.8 * tail, 0.5 * tail[:2]]))
    full = embedded(model, prompts[:1], rex, tail_scale=1.0).tokens[0, -5:]
    torch.testing.assert_close(full, tail)


def test_a_prompt_without_room_for_the_tail_is_refused(model: StableDiffusion) -> None:
    rex = concept_of(model, "hiper", tail=torch.zeros(5, 16))
    assert len(embedded(model, ["cat " * 69 + "{rex}"], rex)) == 1
    with pytest.raises(PromptError, match="no room for 5"):
        embedded(model, ["cat " * 70 + "{rex}"], rex)


@pytest.mark.parametrize("harm", ["no alpha", "rank", "inputs", "no ids", "id", "width"])
def test_tensors_that_do_not_fit_are_refused(model: StableDiffusion, harm: str) -> None:
    lora, words = dict(low_rank(model).tensors), dict(rows(model, [3, 4]).tensors)
    if harm == "no alpha":
        del lora[f"{CONV}.alpha"]
    elif harm == "rank":
        lora[f"{CONV}.lora_B"] = torch.zeros(16, 3)
    elif harm == "inputs":
        lora[f"{CONV}.lora_A"] = torch.zeros(2, 7)
    elif harm == "no ids":
        del words[f"{EMBEDDING}.ids"]
    elif harm == "id":
        words[f"{EMBEDDING}.ids"] = torch.tensor([3, 10**6])
    else:
        words[f"{EMBEDDING}.rows"] = torch.zeros(2, 8)
    spoilt = replace(low_rank(model), tensors={**lora, **words})
    with pytest.raises(ConceptError, match="damaged"), applied(model, spoilt):
        pass


def test_every_sort_and_further_subjects_are_saved_and_loaded(
    model: StableDiffusion, tmp_path: Path
) -> None:
    tensors = {**low_rank(model).tensors, **rows(model, [3]).tensors, "tail": torch.ones(2, 16)}
    both = replace(low_rank(model), tensors=tensors, also={"mia": "zwx dog"})
    loaded = Concept.load(both.save(tmp_path))
    assert loaded.phrases == {"rex": "sks cat", "mia": "zwx dog"}
    assert all(torch.equal(loaded.tensors[key], tensors[key]) for key in tensors)
