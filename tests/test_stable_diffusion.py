"""Tiny folders in the layouts of real ones, through the protocol."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0

from tiny import KINDS, tiny_folder, tiny_model
from understudy.attention.plan import AttentionPlan, CrossMix
from understudy.attention.site import AttentionSite
from understudy.diffusion.text import Text
from understudy.errors import InputError, ModelError, PromptError
from understudy.models.interface import DiffusionModel
from understudy.models.registry import load
from understudy.models.unet.denoiser import Denoiser
from understudy.models.unet.stable_diffusion import StableDiffusion

EXPECTED = {
    # kind: prediction, offset, channels, picture size, tokens, downscale
    "sd15": ("epsilon", 1, 4, (32, 32), 77, 2),
    "sd21": ("v_prediction", 1, 4, (32, 32), 77, 2),
    "toy": ("v_prediction", 1, 6, (64, 64), 24, 4),
    "sdxl": ("epsilon", 1, 4, (32, 32), 77, 2),
}


class Nothing:
    """A control that wants every layer as it is, in many words."""

    def __init__(self) -> None:
        self.sites: list[AttentionSite] = []

    def plan(self, site: AttentionSite) -> AttentionPlan:
        self.sites.append(site)
        rows = (0, 1)
        tokens = range(77)
        mix = CrossMix.aligned(0, tokens, [0.0] * 77)
        cross = {1: mix} if site.kind == "cross" else {}
        return AttentionPlan(rows, rows, rows, cross=cross)


def inputs(model: StableDiffusion, rows: int = 2) -> tuple[torch.Tensor, Text]:
    shape = (rows, model.latent_channels, 16, 16)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return latents, model.embed(["a photo of a cat", "the dog"][:rows])


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_tells_everything_about_the_model(kind: str) -> None:
    model = load(str(tiny_folder(kind)), device="cpu")
    assert isinstance(model, DiffusionModel)
    found = (
        model.schedule.prediction,
        model.schedule.steps_offset,
        model.latent_channels,
        model.picture_size,
        model.max_tokens,
        model.downscale,
    )
    assert found == EXPECTED[kind]
    assert model.dtype == torch.float32
    assert model.schedule.length == 1000
    assert model.schedule.set_alpha_to_one == (kind == "sdxl")  # a fresh Euler config ends at 1
    parts = [*model.trainable_modules().values(), model.vae]
    assert not any(p.requires_grad for part in parts for p in part.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_the_unet_is_called_as_diffusers_calls_it(kind: str) -> None:
    """Our processors give what diffusers' own attention gives."""
    model = tiny_model(kind)
    latents, text = inputs(model)
    plain = UNet2DConditionModel.from_pretrained(tiny_folder(kind) / "unet", dtype=torch.float32)
    plain.set_attn_processor(AttnProcessor2_0())
    added = None
    if kind == "sdxl":
        frame = torch.tensor([[32.0, 32, 0, 0, 32, 32]] * 2)
        added = {"text_embeds": text.pooled, "time_ids": frame}
    with torch.no_grad():
        expected = plain(latents, 501, text.tokens, added_cond_kwargs=added).sample
        found = model.predict(latents, 501, text)
        each = model.predict(latents, torch.tensor([501, 501]), text)
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(each, expected, atol=1e-6)
    assert model.nfe == 4


@pytest.mark.parametrize("kind", ["sd15", "sd21"])
def test_a_control_that_changes_nothing_changes_nothing(kind: str) -> None:
    model, control = tiny_model(kind), Nothing()
    latents, text = inputs(model)
    with torch.no_grad():
        plain = model.predict(latents, 501, text)
        controlled = model.predict(latents, 501, text, control)
    assert torch.allclose(plain, controlled, atol=1e-6)
    names = [site.name for site in control.sites]
    assert names == [site.name for site in model.denoiser.sites] and len(set(names)) == 14
    assert [site.index for site in control.sites] == list(range(14))
    assert [site.block for site in control.sites] == ["down"] * 4 + ["mid"] * 2 + ["up"] * 8
    assert [site.kind for site in control.sites] == ["self", "cross"] * 7
    assert {site.grid for site in control.sites} == {(16, 16), (8, 8)}


@pytest.mark.parametrize("layer", [0, 5, 13])
def test_a_layer_without_our_processor_is_an_error(layer: int) -> None:
    model = tiny_model()
    name = model.denoiser.sites[layer].name
    model.unet.get_submodule(name).set_processor(AttnProcessor2_0())
    latents, text = inputs(model)
    with pytest.raises(ModelError, match=f"1 of 14 attention layers .* the first is {name}"):
        model.predict(latents, 501, text, Nothing())


def test_a_layer_that_is_more_than_attention_is_refused_at_once() -> None:
    unet = UNet2DConditionModel(
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=2,
    )
    before = {name: id(processor) for name, processor in unet.attn_processors.items()}
    with pytest.raises(
        ModelError, match="down_blocks.1.* does not support attention control: its group_norm"
    ):
        Denoiser(unet)
    assert {name: id(processor) for name, processor in unet.attn_processors.items()} == before


@pytest.mark.parametrize("kind", KINDS)
def test_encoding_gives_the_scaled_posterior_mean(kind: str) -> None:
    model = tiny_model(kind)
    height, width = model.picture_size
    pictures = torch.rand(2, 3, height, width * 2) * 2 - 1
    with torch.no_grad():
        expected = model.vae.encode(pictures).latent_dist
        mean, std = model.posterior(pictures)
        latents = model.encode(pictures)
        decoded = model.decode(latents * 50)
    factor = model.vae.config.scaling_factor
    assert torch.equal(latents, expected.mean * factor) and torch.equal(latents, mean)
    assert torch.equal(std, expected.std * factor)
    assert latents.shape == (2, model.latent_channels, 16, 32)
    assert decoded.shape == pictures.shape and decoded.abs().max() == 1


def test_a_picture_that_does_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match="multiples of 2 .* Got 32 x 33"):
        tiny_model().encode(torch.zeros(1, 3, 32, 33))


@pytest.mark.parametrize(("kind", "pad"), [("sd15", 557), ("sd21", 0), ("toy", 557)])
def test_tokens_have_start_end_and_padding(kind: str, pad: int) -> None:
    model = tiny_model(kind)
    tokens = model.tokenize("A photo of a sks cat")
    words = ["a", "photo", "of", "a", "sks", "cat"]
    assert tokens.strings == tuple(f"{word}</w>" for word in words)
    assert len(tokens.ids) == model.max_tokens and tokens.length == 6
    assert tokens.ids[:8] == (556, *(model.vocabulary[string] for string in tokens.strings), 557)
    assert set(tokens.ids[8:]) == {pad}


def test_text_is_embedded_as_a_pipeline_does() -> None:
    model = tiny_model("sd21")
    prompts = ["a photo of a dog", ""]
    told = {"padding": "max_length", "max_length": 77, "return_tensors": "pt"}
    ids = model.tokenizer(prompts, **told).input_ids
    assert torch.equal(model.embed(prompts).tokens, model.text_encoder(ids)[0])


def test_xl_text_is_what_its_pipeline_makes() -> None:
    """Tokens side by side, the pooled embedding beside them, an empty prompt as zeros."""
    from diffusers import StableDiffusionXLPipeline

    prompts = ["a photo of a dog", "the red cat on the beach"]
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_folder("sdxl"))
    told = {"num_images_per_prompt": 1, "do_classifier_free_guidance": True}
    with torch.no_grad():
        tokens, nothing, pooled, none = pipeline.encode_prompt(prompts, **told)
        text = tiny_model("sdxl").embed([*prompts, "", ""])
    assert text.tokens.shape == (4, 77, 16) and text.pooled is not None
    assert torch.allclose(text.tokens[:2], tokens, atol=1e-6)
    assert torch.allclose(text.pooled[:2], pooled, atol=1e-6)
    assert text[2:].equals(Text(nothing, none)) and not nothing.any() and not none.any()


def test_a_prompt_over_the_limit_names_prompt_count_and_limit() -> None:
    model = tiny_model("toy")
    assert model.tokenize("a " * 22).length == 22
    with pytest.raises(PromptError, match="has 23 tokens, .* at most 22: 'a a"):
        model.tokenize("a " * 23)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_weights_leave_latents_float32(kind: str, dtype: torch.dtype) -> None:
    model = tiny_model(kind, dtype=dtype)
    latents, text = inputs(model)
    full = tiny_model(kind)
    with torch.no_grad():
        noise = model.predict(latents, 501, text)
        expected = full.predict(latents, 501, inputs(full)[1])
        pictures = model.decode(latents)
        encoded = model.encode(pictures)
    kinds = (model.dtype, noise.dtype, pictures.dtype, encoded.dtype)
    assert kinds == (dtype, *[torch.float32] * 3)
    assert (noise - expected).abs().max() < 0.1
    assert model.fingerprint == full.fingerprint


def test_gradients_reach_latents_and_text_but_no_weight() -> None:
    model = tiny_model()
    latents, text = inputs(model)
    tokens = text.tokens.detach().requires_grad_()
    text = text.with_trainable([tokens])
    model.predict(latents, 501, text, Nothing()).square().mean().backward()
    assert tokens.grad is not None and tokens.grad.abs().max() > 0
    assert all(p.grad is None for p in model.unet.parameters())


def test_the_fingerprint_follows_the_weights() -> None:
    model, other = tiny_model(), tiny_model("sd21")
    base = model.base_fingerprint
    assert base == model.fingerprint == tiny_model().fingerprint
    assert base != other.fingerprint
    weight = next(model.text_encoder.parameters())
    before = weight.clone()
    with torch.no_grad():
        weight[0, 0] += 1e-6
        changed = model.fingerprint
        weight.copy_(before)
    assert changed != base == model.base_fingerprint == model.fingerprint


# Folders that cannot be loaded say why.


def copied(tmp_path: Path, kind: str = "sd15") -> Path:
    return Path(shutil.copytree(tiny_folder(kind), tmp_path / "model"))


def edited(tmp_path: Path, part: str, change, kind: str = "sd15") -> Path:
    folder = copied(tmp_path, kind)
    [path] = (folder / part).glob("*config.json")
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    return folder


def refused(folder: Path, match: str) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        StableDiffusion.from_folder(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(part: str, tmp_path: Path) -> None:
    folder = copied(tmp_path)
    shutil.rmtree(folder / part)
    refused(folder, f"lacks {part}/")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_damaged_missing_or_pickled_weights_are_named(part: str, tmp_path: Path) -> None:
    folder = copied(tmp_path)
    [weights] = (folder / part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    refused(folder, f"{part} cannot be loaded")
    pickled = weights.rename(weights.with_suffix(".bin"))
    refused(folder, f"{part} has only pickled weights")
    pickled.unlink()
    refused(folder, f"{part} has no weights")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "scheduler"])
def test_a_damaged_configuration_is_named(part: str, tmp_path: Path) -> None:
    folder = copied(tmp_path)
    [config] = (folder / part).glob("*config.json")
    config.write_text("{")
    refused(folder, part)


def test_what_is_missing_or_strange_in_an_xl_folder_is_named(tmp_path: Path) -> None:
    folder = copied(tmp_path, "sdxl")
    shutil.move(folder / "text_encoder_2", tmp_path / "aside")
    refused(folder, "lacks text_encoder_2/")
    shutil.move(tmp_path / "aside", folder / "text_encoder_2")
    shutil.rmtree(folder / "unet")
    shutil.copytree(tiny_folder("sd21") / "unet", folder / "unet")
    refused(folder, "do not fit: unet adds None numbers")
    other = copied(tmp_path / "other", "sd15")
    shutil.rmtree(other / "unet")
    shutil.copytree(tiny_folder("sdxl") / "unet", other / "unet")
    refused(other, "needs inputs beyond text")


def test_a_tokenizer_with_more_words_than_its_encoder_is_refused(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    words = json.loads((folder / "tokenizer" / "vocab.json").read_text())
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({**words, "zebra</w>": 558}))
    refused(folder, "text_encoder has 558 words, its tokenizer 559")


def test_the_autoencoder_of_xl_stays_in_full_precision() -> None:
    model = tiny_model("sdxl", dtype=torch.float16)
    assert next(model.vae.parameters()).dtype == torch.float32
    assert {p.dtype for p in model.text_encoder_2.parameters()} == {torch.float16}


def test_parts_of_two_models_do_not_fit(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    shutil.rmtree(folder / "vae")
    shutil.copytree(tiny_folder("toy") / "vae", folder / "vae")
    refused(folder, "do not fit: unet takes 4 latent channels, vae gives 6")


def test_weights_that_do_not_fill_the_network_are_refused(tmp_path: Path) -> None:
    """A part whose file lacks tensors must not be filled up with random ones."""
    from safetensors.torch import load_file, save_file

    for part in ("unet", "vae", "text_encoder"):
        folder = copied(tmp_path / part)
        [weights] = (folder / part).glob("*.safetensors")
        tensors = load_file(weights)
        tensors.pop(sorted(tensors)[0])
        save_file(tensors, weights, metadata={"format": "pt"})
        refused(folder, f"{part} (lack|cannot be loaded)")


def test_other_families_are_refused(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    index = folder / "model_index.json"
    for kind, match in (
        ("StableDiffusionXLPipeline", "lacks text_encoder_2/, tokenizer_2/"),
        ("FluxPipeline", "lacks transformer/, text_encoder_2/, tokenizer_2/"),
        ("StableDiffusion3Pipeline", "lacks transformer/, text_encoder_2/"),
    ):
        index.write_text(json.dumps({"_class_name": kind}))
        refused(folder, match)
    index.unlink()
    refused(folder, "no model_index.json")


def test_an_unknown_prediction_type_is_refused(tmp_path: Path) -> None:
    folder = edited(tmp_path, "scheduler", lambda c: {**c, "prediction_type": "noise"})
    refused(folder, "predicts 'noise'")
