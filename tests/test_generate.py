"""Prompt to picture with tiny models: determinism, batches, and an untouched model."""

import pytest
import torch

from tiny import KINDS, tiny_folder, tiny_model
from understudy.attention.plan import AttentionPlan
from understudy.attention.site import AttentionSite
from understudy.diffusion.sampler import sample_steps, starting_noise
from understudy.errors import InputError
from understudy.generate import generate, generate_steps
from understudy.settings import GenerateSettings

FEW = GenerateSettings(steps=4)


class Same:
    """A control that spells out what every layer does anyway."""

    def plan(self, site: AttentionSite) -> AttentionPlan:
        rows = (0, 1)
        return AttentionPlan(rows, rows, rows)


@pytest.mark.parametrize("kind", KINDS)
def test_generating_leaves_the_model_as_it_was(kind: str) -> None:
    model = tiny_model(kind)
    parts = {**model.trainable_modules(), "vae": model.vae}
    before = {name: (repr(part), clone(part)) for name, part in parts.items()}
    pictures = generate(model, ["a photo of a cat", "a dog"], [0, 1], FEW)
    assert pictures.shape == (2, 3, *model.picture_size)
    assert pictures.dtype == torch.float32 and pictures.abs().max() <= 1
    assert model.nfe == 2 * 2 * FEW.steps
    for name, part in parts.items():
        assert repr(part) == before[name][0]
        assert all(torch.equal(t, before[name][1][key]) for key, t in part.state_dict().items())
    assert model.fingerprint == model.base_fingerprint


def clone(part: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: tensor.clone() for key, tensor in part.state_dict().items()}


@pytest.mark.parametrize("kind", ["sd15", "sd21"])
def test_pictures_equal_the_diffusers_pipeline(kind: str) -> None:
    """The same latents, prompt and DDIM through diffusers' own pipeline and attention."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    model = tiny_model(kind)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_folder(kind), dtype=torch.float32)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        "a photo of a cat",
        negative_prompt="the floor",
        latents=starting_noise([3], (4, 16, 16), like=model),
        num_inference_steps=5,
        guidance_scale=3.0,
        output_type="pt",
    ).images
    settings = GenerateSettings(steps=5, guidance=3.0, negative="the floor")
    found = generate(model, ["a photo of a cat"], [3], settings)
    assert (found / 2 + 0.5 - expected).abs().max() < 1e-4


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_batch_does_not_change_a_picture(eta: float) -> None:
    model, few = tiny_model("toy"), GenerateSettings(steps=4, eta=eta)
    prompts, seeds = ["a photo of a cat", "a dog", "a bear on the beach"], [5, 6, 7]
    together = generate(model, prompts, seeds, few)
    for row in range(3):
        alone = generate(model, prompts[row : row + 1], seeds[row : row + 1], few)
        assert (alone[0] - together[row]).abs().max() < 1e-4


def test_the_seed_decides_the_picture() -> None:
    model = tiny_model()
    first, again, other = (generate(model, ["a cat"], [seed], FEW) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 0.01


def test_fresh_noise_and_its_temperature_change_the_picture() -> None:
    model = tiny_model()
    hows = [{}, {"eta": 1.0}, {"eta": 1.0, "temperature": 0.5}, {"temperature": 0.5}]
    still, stirred, cool, without = (
        generate(model, ["a cat"], [1], GenerateSettings(steps=4, **how)) for how in hows
    )
    assert (still - stirred).abs().max() > 0.01
    assert (stirred - cool).abs().max() > 0.01
    assert torch.equal(still, without)  # there is no noise to scale


def test_a_control_that_changes_nothing_gives_the_same_latents() -> None:
    model = tiny_model()
    text, uncond = model.embed(["a cat"]), model.embed([""])
    noise = starting_noise([0], (4, 16, 16), like=model)
    how = {"steps": 4, "guidance": 5.0}
    *_, plain = sample_steps(model, noise, text, uncond, **how)
    *_, controlled = sample_steps(model, noise, text, uncond, control_at=lambda i: Same(), **how)
    assert torch.allclose(plain.latents, controlled.latents, atol=1e-6)


def test_steps_come_one_by_one_and_may_be_left_early() -> None:
    model = tiny_model()
    steps = generate_steps(model, ["a cat"], [0], GenerateSettings(steps=10, guidance=1))
    first = next(steps)
    assert (first.index, first.total, first.time) == (0, 10, 901)
    assert torch.is_grad_enabled()
    steps.close()
    assert model.nfe == 1
    assert torch.is_grad_enabled()


def test_any_size_the_latents_divide() -> None:
    model = tiny_model()
    assert generate(model, ["a cat"], [0], FEW, size=(48, 24)).shape == (1, 3, 48, 24)
    with pytest.raises(InputError, match="multiples of 2 .* Got 31 x 32"):
        generate(model, ["a cat"], [0], FEW, size=(31, 32))


def test_prompts_and_seeds_must_pair() -> None:
    with pytest.raises(InputError, match="Got 2 prompts, 1 seeds"):
        generate(tiny_model(), ["a cat", "a dog"], [0], FEW)


def test_noise_is_the_same_in_any_precision() -> None:
    exact = starting_noise([4], (4, 8, 8), like=tiny_model())
    half = starting_noise([4], (4, 8, 8), like=tiny_model(dtype=torch.bfloat16))
    assert torch.equal(exact, half)
