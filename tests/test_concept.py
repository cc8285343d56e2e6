"""Concepts: applied and removed without a trace, saved and loaded whole, refused on a misfit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tiny import tiny_model
from understudy.concept import (
    MANIFEST,
    Concept,
    applied,
    named_parameters,
    spelled,
    untouched,
    with_articles,
)
from understudy.errors import ConceptError, InputError, OutputError, PromptError
from understudy.models.unet.stable_diffusion import StableDiffusion


def concept_for(model: StableDiffusion, name: str = "rex", seed: int = 0) -> Concept:
    """A random change of every weight of this model."""
    random = torch.Generator().manual_seed(seed)
    tensors = {
        key: (0.1 * torch.randn(parameter.shape, generator=random)).half()
        for key, parameter in named_parameters(model).items()
    }
    return Concept(
        name=name,
        identifier="sks",
        class_noun="cat",
        kind="dreambooth",
        base_model=model.name,
        base_fingerprint=model.base_fingerprint,
        tensors=tensors,
        record={"steps": 3},
    )


def snapshot(model: StableDiffusion) -> tuple[object, ...]:
    """Everything that applying a concept must leave as it was."""
    modules = model.trainable_modules().values()
    parameters = list(named_parameters(model).values())
    return (
        model.fingerprint,
        [repr(module) for module in modules],
        [(p.data_ptr(), p.requires_grad, p.dtype, p.grad) for p in parameters],
        [part.training for module in modules for part in module.modules()],
    )


def weights(model: StableDiffusion) -> dict[str, Tensor]:
    return {key: p.detach().clone() for key, p in named_parameters(model).items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# Putting on and taking off


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_worn_changes_the_weights_and_leaves_no_trace(dtype: torch.dtype) -> None:
    model = tiny_model(dtype=dtype)
    before, known = weights(model), snapshot(model)
    concept = concept_for(model)
    with applied(model, concept):
        for key, parameter in named_parameters(model).items():
            total = (before[key].float() + concept.tensors[key].float()).to(dtype)
            assert torch.equal(parameter.data, total), key
            assert not parameter.requires_grad
        assert model.fingerprint != known[0]
        assert model.base_fingerprint == known[0]
    assert same(weights(model), before) and snapshot(model) == known


def test_worn_leaves_no_trace_after_an_error() -> None:
    model = tiny_model()
    before, known = weights(model), snapshot(model)
    with pytest.raises(RuntimeError, match="inside"), applied(model, concept_for(model)):
        raise RuntimeError("inside")
    assert same(weights(model), before) and snapshot(model) == known


def test_worn_nests_and_several_add_up() -> None:
    model = tiny_model()
    known = snapshot(model)
    rex, mia = concept_for(model), concept_for(model, "mia", seed=1)
    with applied(model, rex):
        outer = model.fingerprint
        with applied(model, mia):
            nested = weights(model)
            both = model.fingerprint
        assert model.fingerprint == outer
    with applied(model, rex, mia):
        assert same(weights(model), nested) and model.fingerprint == both
    assert len({known[0], outer, both}) == 3
    assert snapshot(model) == known


def test_each_concept_has_a_fingerprint_of_its_own_however_memory_is_reused() -> None:
    model = tiny_model()
    seen: set[str] = set()
    for seed in range(4):
        with applied(model, concept_for(model, seed=seed)):
            seen.add(model.fingerprint)
    assert len(seen) == 4 and model.fingerprint == model.base_fingerprint


def test_untouched_puts_back_grad_flags_modes_and_precision() -> None:
    model = tiny_model()
    model.unet.train()
    known = snapshot(model)
    with untouched(model) as parameters:
        model.unet.eval()
        for parameter in parameters.values():
            parameter.data = parameter.data.double()
            parameter.requires_grad_(True)
            parameter.grad = torch.ones_like(parameter)
    assert snapshot(model) == known


def test_a_concept_of_another_model_is_refused_naming_both() -> None:
    made_for, other = tiny_model("sd15"), tiny_model("sd21")
    known = snapshot(other)
    with pytest.raises(ConceptError) as refused, applied(other, concept_for(made_for)):
        pass
    assert made_for.name in str(refused.value) and other.name in str(refused.value)
    assert snapshot(other) == known


@pytest.mark.parametrize("key, shape", [("unet.nothing.weight", (1,)), (None, (1, 2, 3))])
def test_a_concept_that_does_not_fit_is_refused(key: str | None, shape: tuple[int, ...]) -> None:
    model = tiny_model()
    key = key or next(iter(named_parameters(model)))
    concept = replace(concept_for(model), tensors={key: torch.zeros(shape)})
    with pytest.raises(ConceptError, match=key), applied(model, concept):
        pass


# Files


def test_a_saved_concept_is_loaded_as_it_was(tmp_path: Path) -> None:
    concept = concept_for(tiny_model())
    folder = concept.save(tmp_path / "cast" / "rex")
    loaded = Concept.load(folder)
    assert same(dict(loaded.tensors), dict(concept.tensors))
    assert replace(loaded, tensors={}).__dict__ == replace(concept, tensors={}).__dict__
    assert loaded.phrase == "sks cat"
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".safetensors"]


def test_saving_again_replaces_the_old_concept_whole(tmp_path: Path) -> None:
    model = tiny_model()
    first, second = concept_for(model), concept_for(model, seed=1)
    first.save(tmp_path)
    second.save(tmp_path)
    assert same(dict(Concept.load(tmp_path).tensors), dict(second.tensors))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_save_that_fails_leaves_the_old_concept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    first = concept_for(model)
    first.save(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for place in ("understudy.files.tensors.save_file", "pathlib.Path.write_text"):
        with monkeypatch.context() as patch:
            patch.setattr(place, full)
            with pytest.raises(OutputError, match="full"):
                concept_for(model, seed=1).save(tmp_path)
        assert same(dict(Concept.load(tmp_path).tensors), dict(first.tensors))
        assert len(list(tmp_path.iterdir())) == 2


def test_a_first_save_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OutputError):
        concept_for(tiny_model()).save(tmp_path / "rex")
    assert not (tmp_path / "rex").exists()


@pytest.mark.parametrize("harm", ["flip", "cut", "gone", "no manifest", "empty", "no folder"])
def test_a_damaged_concept_is_refused_by_name(tmp_path: Path, harm: str) -> None:
    folder = concept_for(tiny_model()).save(tmp_path / "rex")
    weights = next(folder.glob("*.safetensors"))
    content = weights.read_bytes()
    if harm == "flip":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "cut":
        weights.write_bytes(content[: len(content) // 2])
    elif harm == "gone":
        weights.unlink()
    elif harm == "no manifest":
        (folder / MANIFEST).unlink()
    elif harm == "empty":
        (folder / MANIFEST).write_text("")
    with pytest.raises(ConceptError, match="rex"):
        Concept.load(folder if harm != "no folder" else tmp_path / "rexx")


@pytest.mark.parametrize(
    "key, value",
    [
        ("format", 2),
        ("weights", "../elsewhere.safetensors"),
        ("identifier", None),
        ("sha256", 7),
        ("name", "no such {name}"),
        ("record", "text"),
    ],
)
def test_a_foreign_manifest_is_refused(tmp_path: Path, key: str, value: object) -> None:
    folder = concept_for(tiny_model()).save(tmp_path)
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {key: value}))
    with pytest.raises(ConceptError, match=MANIFEST):
        Concept.load(folder)


# Words


def test_placeholders_are_spelled_out() -> None:
    model = tiny_model()
    rex = concept_for(model)
    mia = replace(concept_for(model, "mia"), identifier="zwx", class_noun="dog")
    assert spelled("{rex} and {mia} on the beach", rex, mia) == "sks cat and zwx dog on the beach"
    assert spelled("a cat") == "a cat"


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("a photo of {rex}", "a photo of a {rex}"),
        ("{rex} and {mia} on the beach", "a {rex} and a {mia} on the beach"),
        ("a cat, {rex} behind it", "a cat, a {rex} behind it"),
        ("a photo of a {rex} next to the {mia}", "a photo of a {rex} next to the {mia}"),
        ("a red {rex}, my {mia}", "a red {rex}, my {mia}"),
        ("a photo of a cat", "a photo of a cat"),
    ],
)
def test_a_missing_article_is_put_in(written: str, asked: str) -> None:
    assert with_articles(written) == asked


def test_an_unknown_placeholder_is_named_and_the_known_ones_listed() -> None:
    rex = concept_for(tiny_model())
    with pytest.raises(PromptError, match=r"\{max\}.*\{rex\}"):
        spelled("{max} on the beach", rex)
    with pytest.raises(PromptError, match="no concept was given"):
        spelled("{max} on the beach")


@pytest.mark.parametrize("name", ["", "two words", "{rex}", "7up", "../up"])
def test_a_name_that_prompts_cannot_say_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="name"):
        replace(concept_for(tiny_model()), name=name)
