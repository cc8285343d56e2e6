"""LoRA, Textual Inversion, HiPer and several subjects: what trains, what a concept holds of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from golden_hiper import named, noun_of, sampled_model
from golden_model import GoldenCase, golden_cases
from test_learn import assert_no_trace, photos, same, weights
from tiny import tiny_model
from understudy.concept import Concept, applied, embedded, named_parameters
from understudy.diffusion.sampler import sample_steps
from understudy.errors import ConceptError, ExtraMissing, InputError
from understudy.learn import Subject, learn_steps
from understudy.learn.batches import Batches
from understudy.learn.hiper import tail_of
from understudy.learn.lora import low_rank
from understudy.learn.loss import Rows
from understudy.learn.training import Trainer, TrainOptions
from understudy.models.unet.stable_diffusion import StableDiffusion
from understudy.settings import LearnSettings

METHODS = ("dreambooth", "lora", "textual-inversion", "hiper")
QUICK: dict[str, Any] = {"steps": 2, "batch_size": 2, "prior_steps": 2, "learning_rate": 1e-3}


def learnt(model: StableDiffusion, *subjects: Subject, **knobs: Any) -> Concept:
    after = knobs.pop("after", ())
    given = {**QUICK, "prior_samples": 0, **knobs}
    subjects = subjects or (Subject("rex", "cat", photos(2, model.picture_size[0])),)
    *_, last = learn_steps(model, *subjects, settings=LearnSettings.filled(given), after=after)
    assert last.concept is not None
    return last.concept


# HiPer


class Recorded(Batches):
    """A lesson whose rows were recorded."""

    def __init__(self, case: GoldenCase, prompt: str) -> None:
        vars(self).update(case=case, step=0, wordings=((prompt,),), prior=None)

    def draw(self, generator: torch.Generator) -> list[Rows]:
        noise = self.case.array("noise")[self.step]
        times = self.case.array("timesteps")[self.step]
        zero = torch.zeros(len(noise), dtype=torch.long)
        vars(self)["step"] += 1
        clean = self.case.array("z0").expand_as(noise)
        return [Rows(clean, noise, times, zero, zero, torch.ones(len(clean), dtype=torch.float64))]


@golden_cases("g_hiper")
def test_golden_hiper(case: GoldenCase) -> None:
    """Every tail and loss of the authors' loop, the embedding it is used with, a picture by it."""
    how, model = case.settings, sampled_model(case)
    assert tuple(case.get("betas", default=(0.9, 0.999))) == (0.9, 0.999), "Adam's own"
    source = case.prompt(text="source_text", emb="source_emb")
    options = TrainOptions(learning_rate=how["lr"], weight_decay=0.0, clip=0.0)
    batches = Recorded(case, source)
    with tail_of(model, source, how["n_hiper"]) as trainable:
        tail = trainable.parameters["tail"]
        if case.has("tail0"):
            assert torch.equal(tail, case.array("tail0")[0])
        trainer = Trainer(model, trainable, batches, options, torch.Generator())
        for step in range(how["iterations"]):
            loss = trainer.step().loss
            if case.has("losses"):
                assert loss == pytest.approx(float(case.array("losses")[step]), abs=1e-9)
            if case.has("tails"):
                torch.testing.assert_close(tail.data, case.array("tails")[step], rtol=0, atol=1e-9)
        tensors = trainable.tensors()
    concept = Concept("rex", "", noun_of(case), "hiper", "golden", model.base_fingerprint, tensors)
    text = embedded(model, [named(case)], concept, tail_scale=case.get("tail_scale"))
    sampled = how["sampling"]
    if case.has("inference_emb"):
        torch.testing.assert_close(text.tokens, case.array("inference_emb"), rtol=0, atol=1e-6)
    if case.has("sample"):
        *_, last = sample_steps(
            model,
            case.array("x_T"),
            text,
            case.empty,
            steps=sampled["steps"],
            guidance=sampled["guidance"],
        )
        torch.testing.assert_close(last.latents, case.array("sample"), rtol=0, atol=1e-6)


def test_hiper_trains_the_tail_alone_and_leaves_no_trace() -> None:
    model = tiny_model()
    before = weights(model)
    concept = learnt(model, method="hiper", tail=3, tail_scale=0.5)
    assert_no_trace(model, before)
    assert set(concept.tensors) == {"tail"} and concept.tensors["tail"].shape == (3, 16)
    assert concept.phrase == "cat" and concept.tail_scale == 0.5
    start = model.embed(["a photo of a cat"]).tokens[0, -3:]
    assert 0 < float((concept.tensors["tail"] - start).abs().max()) < 3 * 1e-3
    with pytest.raises(InputError, match="--tail 75"):
        learnt(model, method="hiper", tail=75)


# Textual Inversion


def test_textual_inversion_trains_the_rows_of_its_words_alone() -> None:
    model = tiny_model()
    before = weights(model)
    concept = learnt(model, method="textual-inversion", vectors=2, initialiser="dog")
    assert_no_trace(model, before)
    rows, ids = sorted(concept.tensors)[::-1]
    assert rows.endswith("token_embedding.weight.rows") and ids.endswith(".ids")
    assert sorted(concept.phrase.split()) == ["sks", "zwx"]
    assert concept.tensors[ids].tolist() == list(model.tokenize(concept.phrase).ids[1:3])
    start = named_parameters(model)[rows.removesuffix(".rows")][model.tokenize("dog").ids[1]]
    assert 0 < float((concept.tensors[rows] - start).abs().max()) < 3 * 1e-3


def test_training_rows_is_training_the_whole_table_and_putting_the_rest_back() -> None:
    """Against the common way: all rows have gradients, all but the new ones are restored."""
    model = tiny_model()
    knobs: dict[str, Any] = {"method": "textual-inversion", "varied_prompts": False, "clip": 0.0}
    subject = Subject("rex", "cat", photos(), "sks")
    concept = learnt(model, subject, **knobs, steps=3, weight_decay=0.1)
    token, start = model.tokenize("sks").ids[1], model.tokenize("cat").ids[1]
    table = model.text_encoder.get_input_embeddings().weight
    table.data[token] = table.data[start]
    kept = table.data.clone()
    table.requires_grad_(True)
    optimiser = torch.optim.AdamW([table], lr=1e-3, weight_decay=0.1)
    random = torch.Generator().manual_seed(0)
    from understudy.learn.latent_cache import encode_photos

    latents = encode_photos(model, photos())
    batches = Batches(latents, (("a photo of a sks",),), None, 2, model.schedule)
    for _ in range(3):
        (rows,) = batches.draw(random)
        noised = model.schedule.noised(rows.latents, rows.noise, rows.times)
        text = model.embed(["a photo of a sks"]).expand(2)
        answer = model.predict(noised, rows.times, text)
        nn.functional.mse_loss(answer, rows.noise).backward()
        optimiser.step()
        optimiser.zero_grad()
        others = torch.arange(len(table)) != token
        table.data[others] = kept[others]
    learnt_row = next(t for key, t in concept.tensors.items() if key.endswith(".rows"))
    torch.testing.assert_close(learnt_row[0], table.data[token], rtol=1e-4, atol=1e-6)


def test_a_word_of_several_tokens_has_no_row_to_replace() -> None:
    with pytest.raises(InputError, match="one token"):
        learnt(tiny_model(), Subject("rex", "cat", photos(), "rexy"), method="textual-inversion")


# LoRA


def test_lora_trains_low_rank_changes_of_its_targets_alone() -> None:
    model = tiny_model()
    before, modules = weights(model), list(model.unet.modules())
    concept = learnt(model, method="lora", rank=2, alpha=6.0, targets="to_q,to_v")
    assert_no_trace(model, before)
    assert all(a is b for a, b in zip(modules, model.unet.modules(), strict=True))
    assert not hasattr(model.unet, "peft_config")
    layers = {key.rpartition(".")[0] for key in concept.tensors}
    assert all(layer.split(".")[-2] in ("to_q", "to_v", "q_proj", "k_proj", "v_proj", "out_proj")
               for layer in layers)  # fmt: skip
    assert {layer.split(".")[0] for layer in layers} == {"unet", "text_encoder"}
    assert all(concept.tensors[f"{layer}.lora_A"].shape[0] == 2 for layer in layers)
    assert {float(concept.tensors[f"{layer}.alpha"]) for layer in layers} == {6.0}


def test_lora_worn_is_lora_as_it_trained() -> None:
    model = tiny_model()
    random = torch.Generator().manual_seed(0)
    latents, text = torch.randn(1, 4, 16, 16, generator=random), model.embed(["a cat"])
    how: dict[str, Any] = {"rank": 2, "alpha": 6.0, "train_text": False, "seed": 0}
    with low_rank(model, targets=("to_q", "conv1"), **how) as trainable, torch.no_grad():
        plain = model.predict(latents, 500, text)
        for parameter in trainable.parameters.values():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.2)
        trained, tensors = model.predict(latents, 500, text), trainable.tensors()
    concept = Concept("rex", "sks", "cat", "lora", model.name, model.base_fingerprint, tensors)
    with torch.no_grad(), applied(model, concept):
        put_on = model.predict(latents, 500, text)
    assert float((trained - plain).abs().max()) > 1e-2
    torch.testing.assert_close(put_on, trained, rtol=1e-3, atol=1e-4)


def test_lora_begins_as_the_model_itself_and_repeats_by_its_seed() -> None:
    model = tiny_model()
    one, again = (dict(learnt(model, method="lora").tensors) for _ in range(2))
    assert same(one, again)
    assert not same(one, dict(learnt(model, method="lora", seed=1).tensors))
    with pytest.raises(InputError, match="--targets"):
        learnt(model, method="lora", targets="nothing")


# The loop's knobs


def test_accumulated_batches_are_one_larger_batch() -> None:
    model = tiny_model()
    whole = learnt(model, batch_size=4, prior_samples=3)
    pieces = learnt(model, batch_size=1, accumulate=4, prior_samples=3)
    for key, tensor in whole.tensors.items():
        torch.testing.assert_close(pieces.tensors[key], tensor, rtol=0, atol=2e-3)
    size = sum(float(t.float().norm()) for t in whole.tensors.values())
    apart = sum(float((pieces.tensors[k] - t).float().norm()) for k, t in whole.tensors.items())
    assert apart < 0.1 * size


def test_gradient_checkpointing_changes_nothing() -> None:
    model = tiny_model()
    one = learnt(model, gradient_checkpointing=False)
    two = learnt(model, gradient_checkpointing=True)
    assert not model.unet.is_gradient_checkpointing
    assert same(dict(one.tensors), dict(two.tensors))


def test_a_running_average_is_kept_and_is_what_the_concept_holds() -> None:
    model = tiny_model()
    plain, averaged = learnt(model), learnt(model, average=0.999)
    key = "unet.conv_in.weight"
    assert float(averaged.tensors[key].norm()) < float(plain.tensors[key].norm())


def test_eight_bits_need_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes.optim", None)
    with pytest.raises(ExtraMissing, match=r"understudy\[eightbit\]"):
        learnt(tiny_model(), optimiser="adamw8bit")


def test_half_precision_arithmetic_learns_too() -> None:
    concept = learnt(tiny_model(), precision="float16", method="lora")
    assert all(bool(tensor.isfinite().all()) for tensor in concept.tensors.values())


def test_crops_and_mirrors_are_encoded_once_each() -> None:
    from understudy.learn.latent_cache import encode_photos

    latents = encode_photos(tiny_model(), photos(), crops=2, flip=True)
    assert len(latents.mean) == 2 * 3 * 2
    assert len({tuple(row.flatten()[:8].tolist()) for row in latents.mean}) == 12


# Several subjects


def two(size: int) -> tuple[Subject, Subject]:
    pictures = photos(5, size)
    return Subject("rex", "cat", pictures[:2]), Subject("mia", "dog", pictures[2:])


@pytest.mark.parametrize("method", ["lora", "textual-inversion"])
def test_subjects_learnt_together_have_a_word_each(method: str) -> None:
    model = tiny_model()
    concept = learnt(model, *two(32), method=method, prior_samples=2)
    assert set(concept.phrases) == {"rex", "mia"}
    words = [phrase.split()[0] for phrase in concept.phrases.values()]
    assert sorted(words) == ["sks", "zwx"]
    with applied(model, concept):
        embedded(model, ["{rex} and {mia}"], concept)
    with pytest.raises(InputError, match="one subject at a time"):
        learnt(model, *two(32), method="hiper")
    with pytest.raises(InputError, match="--name"):
        learnt(model, *[replace(subject, name="rex") for subject in two(32)])


def test_a_second_subject_is_learnt_on_top_of_the_first_with_pictures_of_it() -> None:
    model = tiny_model()
    rex, mia = two(32)
    first = learnt(model, rex, method="lora")
    before = model.nfe
    second = learnt(model, mia, method="lora", prior_samples=3, after=[first])
    # Two steps of two photos and two others; three samples of dogs and three of rex.
    assert model.nfe - before == 2 * 4 + 2 * (3 * 2 * 2)
    assert second.record["after"] == ["rex"] and second.identifier != first.identifier
    with applied(model, first, second):
        assert model.fingerprint != model.base_fingerprint
    assert model.fingerprint == model.base_fingerprint


def test_a_preset_belongs_to_its_method() -> None:
    paper = LearnSettings.filled({"preset": "paper"}, "toybox")
    assert (paper.steps, paper.learning_rate, paper.prior_samples) == (1000, 5e-6, 1000)
    assert paper.prompt == "a {subject}"
    swap = LearnSettings.filled({"preset": "photoswap"})
    assert (swap.steps, swap.learning_rate, swap.train_text_encoder) == (800, 1e-6, True)
    words = LearnSettings.filled({"preset": "photoswap", "method": "textual-inversion"})
    assert (words.steps, words.learning_rate, words.batch_size) == (1000, 5e-4, 4)
    hiper = LearnSettings.filled({"method": "hiper", "steps": 7})
    assert (hiper.steps, hiper.learning_rate, hiper.tail, hiper.tail_scale) == (7, 5e-3, 5, 0.8)
    assert LearnSettings.filled({"learning_rate": 0.5}, "toybox").learning_rate == 0.5
    with pytest.raises(InputError, match="photoswap is not for --method hiper"):
        LearnSettings.filled({"preset": "photoswap", "method": "hiper"})


def test_rows_of_two_concepts_on_one_word_are_refused() -> None:
    model = tiny_model()
    rex, mia = (
        learnt(model, Subject(name, "cat", photos(), "sks"), method="textual-inversion")
        for name in ("rex", "mia")
    )
    with pytest.raises(ConceptError, match="same word"), applied(model, rex, mia):
        pass
