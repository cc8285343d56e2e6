"""Flow models in little memory: parts that come and go, blocks in 8 and 4 bits, LoRA unmerged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import tiny_flow
from test_flow_models import PROMPTS, embedded, noise
from tiny import tiny_folder
from understudy.concept import Concept, applied
from understudy.errors import ConceptError, InputError
from understudy.learn import learn
from understudy.models.registry import load
from understudy.models.transformer.placement import suited_memory
from understudy.models.transformer.quantised import QuantisedLinear, quantise
from understudy.settings import LearnSettings

NAME = "transformer.transformer_blocks.0.attn.to_q.weight"


@pytest.mark.parametrize(("bits", "most", "size"), [(8, 0.01, 1.0), (4, 0.15, 0.5)])
def test_codes_stand_for_the_weights(bits: Any, most: float, size: float) -> None:
    layer = nn.Linear(96, 50)
    found = QuantisedLinear(layer, bits)
    error = (found.weight - layer.weight).norm() / layer.weight.norm()
    assert error < most
    assert found.codes.numel() * found.codes.element_size() == size * layer.weight.numel()
    x = torch.randn(3, 96)
    assert torch.allclose(found(x), nn.functional.linear(x, found.weight, layer.bias), atol=1e-5)
    assert found(x.bfloat16()).dtype == torch.bfloat16


def test_a_block_that_the_weights_do_not_fill_is_padded() -> None:
    layer = nn.Linear(5, 7)
    assert QuantisedLinear(layer, 4).weight.shape == layer.weight.shape


@pytest.mark.parametrize("kind", ["sd35", "flux", "qwen", "zimage", "flux2"])
@torch.no_grad()
def test_a_quantised_model_predicts_nearly_the_same(kind: str) -> None:
    model = tiny_flow.tiny_flow(kind)
    latents, text = noise(model), embedded(model)
    plain = model.predict(latents, 0.7, text)
    eight = load(str(tiny_flow.tiny_flow_folder(kind)), device="cpu", dtype="int8")
    assert eight.dtype in (torch.float32, torch.bfloat16)
    found = eight.predict(latents, 0.7, text)
    assert 0 < (found - plain).norm() / plain.norm() < 0.05
    blocks = model.network.module
    assert len(quantise(blocks, 8)) > 4
    assert not any(
        isinstance(layer, nn.Linear) and ".attn" in name for name, layer in blocks.named_modules()
    )


def concept(model: Any, **tensors: torch.Tensor) -> Concept:
    return Concept(
        name="rex",
        class_noun="dog",
        identifier="sks",
        kind="lora",
        tensors=tensors,
        base_model=model.name,
        base_fingerprint=model.base_fingerprint,
    )


@torch.no_grad()
def test_a_lora_stays_beside_quantised_weights() -> None:
    model = tiny_flow.tiny_flow("sd35", bits=8)
    latents, text = noise(model), model.embed(PROMPTS)
    a, b = torch.randn(2, 16), torch.randn(16, 2)
    change = {f"{NAME}.lora_A": a, f"{NAME}.lora_B": b, f"{NAME}.alpha": torch.tensor(1.0)}
    rex = concept(model, **change)
    before, plain = model.fingerprint, model.predict(latents, 0.7, text)
    with applied(model, rex):
        changed = model.predict(latents, 0.7, text)
        assert model.fingerprint != before
    with applied(model, replace(rex, strength=0.5)), applied(model, replace(rex, strength=0.5)):
        assert (model.predict(latents, 0.7, text) - changed).abs().max() < 1e-4
    assert (changed - plain).abs().max() > 1e-3
    assert model.fingerprint == before
    assert torch.equal(model.predict(latents, 0.7, text), plain)
    with (
        pytest.raises(ConceptError, match="quantised"),
        applied(model, concept(model, **{NAME: torch.zeros(16, 16)})),
    ):
        pass


def test_a_unet_is_not_quantised() -> None:
    with pytest.raises(InputError, match="U-Net"):
        load(str(tiny_folder("sd15")), device="cpu", dtype="nf4")


@pytest.mark.parametrize("memory", ["parts", "blocks"])
@torch.no_grad()
def test_parts_that_come_and_go_compute_the_same(memory: Any) -> None:
    plain = tiny_flow.tiny_flow("flux")
    model = tiny_flow.tiny_flow("flux", memory=memory)
    latents, text = noise(plain), embedded(plain)
    assert model.device == plain.device and model.dtype == plain.dtype
    assert embedded(model).equals(text)
    assert torch.equal(model.predict(latents, 0.7, text), plain.predict(latents, 0.7, text))
    assert torch.equal(model.decode(latents), plain.decode(latents))
    assert model.fingerprint == plain.fingerprint


@torch.no_grad()
def test_a_prompt_is_read_once_until_its_encoder_changes() -> None:
    model = tiny_flow.tiny_flow("flux", memory="parts")
    encoder: Any = model.networks["text_encoder_2"]
    reads: list[int] = []
    encoder.register_forward_hook(lambda *_: reads.append(1))
    first = model.embed(["a cat"])
    first.tokens.zero_()  # whoever got it may change it
    assert model.embed(["a cat"]).tokens.any() and len(reads) == 1
    encoder.shared.weight.add_(1)
    model.embed(["a cat"])
    assert len(reads) == 2


def test_the_first_arrangement_that_fits_is_taken() -> None:
    sizes = {"transformer": 24e9, "vae": 0.2e9, "text_encoder_2": 9.5e9}
    assert suited_memory(sizes, None) == "all"
    assert suited_memory(sizes, 80e9) == "all"
    assert suited_memory(sizes, 32e9) == "parts"
    assert suited_memory(sizes, 16e9) == "blocks"


@pytest.mark.parametrize("bits", [8, 4])
def test_gradients_pass_through_the_codes(bits: Any) -> None:
    dense = torch.nn.Linear(70, 6)
    layer = QuantisedLinear(dense, bits)
    x = torch.randn(3, 2, 70, requires_grad=True)
    told = torch.randn(3, 2, 6)
    (found,) = torch.autograd.grad(layer(x), x, told)
    (wanted,) = torch.autograd.grad(
        torch.nn.functional.linear(x, layer.weight, dense.bias), x, told
    )
    assert torch.allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("kind", ["sd35", "flux"])
def test_a_lora_is_learnt_beside_quantised_weights(kind: str) -> None:
    """QLoRA: the codes stay as they are, and the concept fits the dense model, too."""
    folder = str(tiny_flow.tiny_flow_folder(kind))
    model = load(folder, device="cpu", dtype="nf4")
    codes = {name: layer.codes.clone() for name, layer in model.unmerged.items()}
    before = model.fingerprint
    given = {"method": "lora", "steps": 2, "batch_size": 1, "prior_samples": 0,
             "preservation": "output", "learning_rate": 1e-2}  # fmt: skip
    settings = LearnSettings.filled(given, folder)
    photo = torch.rand(1, 3, 32, 32) * 2 - 1
    rex = learn(model, photo, name="rex", class_noun="dog", settings=settings)
    assert rex.tensors[f"{NAME}.lora_B"].abs().max() > 0
    assert model.fingerprint == before and not any(one.changes for one in model.unmerged.values())
    assert all(torch.equal(model.unmerged[n].codes, old) for n, old in codes.items())
    x, text = torch.randn(1, model.latent_channels, 8, 8), model.embed(["a sks dog"])
    with torch.no_grad():
        plain = model.predict(x, 0.5, text)
        with applied(model, rex):
            assert not torch.equal(model.predict(x, 0.5, text), plain)
    dense = tiny_flow.tiny_flow(kind)
    with torch.no_grad(), applied(dense, rex):
        assert dense.predict(x, 0.5, text).isfinite().all()
