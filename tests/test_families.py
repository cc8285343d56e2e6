"""Every verb and every way of learning, on tiny models in the layouts of SD 1.5, 2.1 and XL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tiny import tiny_model
from understudy.concept import Concept, applied, embedded
from understudy.diffusion.sampler import sample_steps, starting_noise
from understudy.generate import generate
from understudy.invert import invert
from understudy.invert.inversion import Inversion
from understudy.learn import Subject, learn_steps
from understudy.models.unet.stable_diffusion import StableDiffusion
from understudy.settings import GenerateSettings, InvertSettings, LearnSettings, SwapSettings
from understudy.swap import swap

FAMILIES = ("sd15", "sd21", "sdxl")
METHODS = ("dreambooth", "lora", "textual-inversion", "hiper")
QUICK: dict[str, Any] = {"steps": 2, "prior_samples": 1, "prior_steps": 2, "learning_rate": 1e-2}
PROMPT = "a photo of a cat on the beach"


def photos(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1


def drawn(model: StableDiffusion, *concepts: Concept) -> Tensor:
    """What the model makes of a prompt that names the subject, or its class without concepts."""
    noise = starting_noise([0], (4, 16, 16), like=model)
    prompt = "a photo of a {rex}" if concepts else "a photo of a cat"
    with torch.no_grad(), applied(model, *concepts):
        text = embedded(model, [prompt], *concepts)
        *_, last = sample_steps(model, noise, text, model.embed([""]), steps=2, guidance=3.0)
    return last.latents


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_learnt_saved_reloaded_and_drawn(family: str, method: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    plain, before = drawn(model), model.fingerprint
    settings = LearnSettings.filled({"method": method, **QUICK})
    *_, last = learn_steps(model, Subject("rex", "cat", photos()), settings=settings)
    assert last.concept is not None and model.fingerprint == before
    again = Concept.load(last.concept.save(tmp_path / "rex"))
    assert again.tensors.keys() == last.concept.tensors.keys()
    parts = {name.split(".")[0] for name in again.tensors}
    texts = {"text_encoder", "text_encoder_2"} if family == "sdxl" else {"text_encoder"}
    assert (
        parts
        == {
            "dreambooth": {"unet"} | texts,
            "lora": {"unet"} | texts,
            "textual-inversion": texts,
            "hiper": {"tail"},
        }[method]
    )
    pictures = drawn(model, again)
    assert pictures.isfinite().all()
    assert (pictures - plain).abs().max() > 1e-4
    assert torch.equal(pictures, drawn(tiny_model(family), again))


@pytest.mark.parametrize(
    "method",
    [
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("negative-prompt", "ddim")),
        "null-text",
        "direct",
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_inverted_saved_and_swapped(family: str, method: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    how = {"steps": 3, "guidance": 3.0}
    settings = InvertSettings.filled({**how, "method": method, "inner_steps": 2})
    made = invert(model, photos(1), PROMPT, settings)
    made.save(tmp_path / "photo.safetensors")
    found = Inversion.load(tmp_path / "photo.safetensors")
    target = PROMPT.replace("cat", "sks dog")
    pictures = swap(model, found, target, SwapSettings.filled(how))
    assert pictures.shape == (1, 3, 32, 32) and pictures.isfinite().all()
    same = swap(model, found, PROMPT, SwapSettings.filled(how))
    assert (pictures - same).abs().max() > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_is_what_its_pictures_are_alone(family: str) -> None:
    model, how = tiny_model(family), GenerateSettings(steps=2, guidance=3.0)
    both = generate(model, ["a cat", "a dog"], [1, 2], how)
    alone = generate(model, ["a dog"], [2], how)
    assert torch.allclose(both[1:], alone, atol=1e-5)
