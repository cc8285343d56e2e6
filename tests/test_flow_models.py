"""Flow transformers on tiny random folders: equal to diffusers' classes, loaded, saved, sampled."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_flow
from tiny_flow import KINDS, stock_pipeline, tiny_flow_folder
from understudy.attention.plan import AttentionPlan
from understudy.attention.site import AttentionSite
from understudy.errors import InputError, ModelError, PromptError
from understudy.generate import generate
from understudy.models.registry import load
from understudy.models.transformer.model import FlowTransformer
from understudy.models.write_folder import copy_folder, write_folder
from understudy.settings import GenerateSettings

each_kind = pytest.mark.parametrize("kind", KINDS)
PROMPTS = ["a photo of a cat on the beach", "a dog"]  # of unequal length


@dataclass
class Plain:
    """A control that only listens."""

    sites: list[AttentionSite] = field(default_factory=list[AttentionSite])

    def plan(self, site: AttentionSite) -> AttentionPlan:
        self.sites.append(site)
        return AttentionPlan()


def noise(model: FlowTransformer, rows: int = 2, size: tuple[int, int] = (8, 12)) -> torch.Tensor:
    """Latents of a picture that is not square."""
    draws = torch.Generator().manual_seed(1)
    return torch.randn(rows, model.latent_channels, *size, generator=draws)


@torch.no_grad()
def stock_velocity(kind: str, latents: torch.Tensor, sigma: float) -> torch.Tensor:
    """diffusers' own network with its own processors, called as its pipeline calls it."""
    pipe = stock_pipeline(kind)
    tokens, _, pooled, _ = pipe.encode_prompt(
        PROMPTS, None, None, do_classifier_free_guidance=False, **lengths(kind)
    )
    time = torch.full((len(latents),), sigma * 1000)
    return pipe.transformer(latents, tokens, pooled, time, return_dict=False)[0]


def lengths(kind: str) -> dict[str, Any]:
    """T5's length, as the tiny tokenizer says it."""
    return {"max_sequence_length": 24} if kind == "sd35" else {}


@each_kind
@torch.no_grad()
def test_without_a_control_it_equals_the_stock_class_bit_for_bit(kind: str) -> None:
    model = tiny_flow.tiny_flow(kind)
    latents = noise(model)
    ours = model.predict(latents, 0.7, model.embed(PROMPTS))
    assert torch.equal(ours, stock_velocity(kind, latents, 0.7))
    assert ours.std() > 0.01


@each_kind
@torch.no_grad()
def test_a_control_that_asks_for_nothing_changes_nothing(kind: str) -> None:
    model, control = tiny_flow.tiny_flow(kind), Plain()
    latents, text = noise(model), model.embed(PROMPTS)
    ours = model.predict(latents, 0.7, text, control)
    assert (ours - model.predict(latents, 0.7, text)).abs().max() < 1e-5
    assert [site.name for site in control.sites] == [site.name for site in model.sites]
    grid = (8 // model.network.patch, 12 // model.network.patch)
    for site in control.sites:
        assert site.grid == grid
        assert site.image.stop - site.image.start == grid[0] * grid[1]
        if site.kind == "joint":
            assert site.text.stop - site.text.start == text.tokens.shape[1] != site.cells


@each_kind
@torch.no_grad()
def test_rows_may_have_times_of_their_own(kind: str) -> None:
    model = tiny_flow.tiny_flow(kind)
    latents, text = noise(model), model.embed(PROMPTS)
    both = model.predict(latents, torch.tensor([0.9, 0.2]), text)
    alone = model.predict(latents[1:], 0.2, text[1])
    assert (both[1:] - alone).abs().max() < 1e-5
    assert (both[1:] - model.predict(latents[1:], 0.9, text[1])).abs().max() > 1e-4


@each_kind
def test_saved_loaded_and_sampled_it_gives_the_same_picture(kind: str, tmp_path: Path) -> None:
    model = tiny_flow.tiny_flow(kind)
    settings = GenerateSettings(steps=3, guidance=2.0)
    with torch.no_grad():
        model.network.module.proj_out.weight.mul_(1.1)  # a changed model, not the folder's
    first = generate(model, PROMPTS, [0, 1], settings, size=(16, 24))
    write_folder(model, tmp_path / "saved")
    again = load(str(tmp_path / "saved"), device="cpu")
    assert torch.equal(first, generate(again, PROMPTS, [0, 1], settings, size=(16, 24)))
    copy_folder(tmp_path / "saved", tmp_path / "copied")
    assert load(str(tmp_path / "copied"), device="cpu").fingerprint == again.fingerprint
    assert again.fingerprint != model.base_fingerprint


@each_kind
@torch.no_grad()
def test_the_stock_pipeline_draws_the_same_picture(kind: str) -> None:
    model, pipe = tiny_flow.tiny_flow(kind), stock_pipeline(kind)
    settings = GenerateSettings(steps=4, guidance=3.0)
    ours = generate(model, PROMPTS[:1], [5], settings, size=(16, 24))
    theirs = pipe(
        PROMPTS[:1],
        height=16,
        width=24,
        num_inference_steps=4,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(5),
        output_type="pt",
        **lengths(kind),
    ).images
    assert (ours / 2 + 0.5 - theirs).abs().max() < 1e-4


@each_kind
@torch.no_grad()
def test_latents_are_scaled_and_shifted_as_the_pipeline_does(kind: str) -> None:
    model, pipe = tiny_flow.tiny_flow(kind), stock_pipeline(kind)
    pictures = torch.rand(1, 3, 16, 24) * 2 - 1
    config = pipe.vae.config
    theirs = pipe.vae.encode(pictures).latent_dist.mean
    theirs = (theirs - config.shift_factor) * config.scaling_factor
    assert (model.encode(pictures) - theirs).abs().max() < 1e-6
    again = pipe.vae.decode(theirs / config.scaling_factor + config.shift_factor).sample
    assert (model.decode(theirs) - again.clamp(-1, 1)).abs().max() < 1e-6


def test_words_have_places_in_every_encoder() -> None:
    from understudy.diffusion.words import word_places

    model, prompt = tiny_flow.tiny_flow("sd35"), "a photo of a cat"
    clip, t5 = model.readings(prompt)
    assert word_places(prompt, "cat", clip) == (5,)
    assert word_places(prompt, "cat", t5) == (77 + 4,)
    assert model.tokenize(prompt) == clip
    assert model.max_tokens == model.embed([prompt]).tokens.shape[1] == 77 + 24


def test_a_prompt_that_no_encoder_reads_whole_is_refused() -> None:
    model = tiny_flow.tiny_flow("sd35")
    with pytest.raises(PromptError, match="at most 23"):
        model.embed(["cat " * 24])
    model.embed(["cat " * 23])


def test_a_size_that_is_no_multiple_of_the_patches_is_refused() -> None:
    model = tiny_flow.tiny_flow("sd35")
    with pytest.raises(InputError, match="multiples of 4"):
        model.predict(torch.zeros(1, 4, 8, 11), 0.5, model.embed(["a"]))


@each_kind
@pytest.mark.parametrize("part", ["transformer", "vae", "tokenizer"])
def test_a_folder_without_a_part_is_refused_by_name(kind: str, part: str, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_flow_folder(kind), tmp_path / "model")
    shutil.rmtree(folder / part)
    with pytest.raises(ModelError, match=f"lacks {part}/"):
        load(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("transformer", {"num_layers": 9}, "lack"),
        ("transformer", {"caption_projection_dim": 20}, "shape|fit"),
        ("transformer", {"surprise": 1}, "'surprise'"),
        ("transformer", {"num_layers": 10**9}, "num_layers"),
        ("transformer", {"quantization_config": {"a": 1}}, "quantization_config"),
        ("text_encoder_3", {"architectures": ["UMT5EncoderModel"]}, "Wanted T5EncoderModel"),
        ("text_encoder", {"vocab_size": 20}, "fit|shape"),
        ("vae", {"latent_channels": 8}, "fit|shape"),
    ],
)
def test_a_damaged_configuration_is_refused_by_name(
    part: str, change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_flow_folder("sd35"), tmp_path / "model")
    file = folder / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelError, match=said):
        load(str(folder), device="cpu")


@pytest.mark.parametrize(
    "change", [{"use_karras_sigmas": True}, {"shift": 0}, {"_class_name": "DDIMScheduler"}]
)
def test_a_schedule_that_is_not_its_own_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_flow_folder("sd35"), tmp_path / "model")
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelError, match="scheduler_config.json"):
        load(str(folder), device="cpu")


def test_dynamic_shifts_are_those_of_diffusers() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

    from understudy.models.transformer.families import SD3
    from understudy.models.transformer.flow_config import load_flow_schedule

    config: dict[str, Any] = {"use_dynamic_shifting": True, "max_shift": 1.2, "base_shift": 0.4}
    theirs = FlowMatchEulerDiscreteScheduler(**config)
    folder = tiny_flow.tiny._session() / "dynamic"
    theirs.save_pretrained(folder / "scheduler")
    ours = load_flow_schedule(folder, SD3, 4).times(9, 64 * 96)
    theirs.set_timesteps(9, mu=calculate_shift(64 * 96 // 4, 256, 4096, 0.4, 1.2))
    assert ours == pytest.approx(theirs.sigmas.tolist(), abs=1e-6)


def test_the_command_line_generates(here: Path) -> None:
    from typer.testing import CliRunner

    from understudy.cli.app import app

    folder = str(tiny_flow_folder("sd35"))
    said = CliRunner().invoke(
        app, ["generate", "a photo of a cat", "--model", folder, "--steps", "2", "--out", "a.png",
              "--device", "cpu"]
    )  # fmt: skip
    assert said.exit_code == 0, said.output
    assert (here / "a.png").is_file()
    checked = CliRunner().invoke(app, ["models", "check", folder])
    assert checked.exit_code == 0 and "Stable Diffusion 3" in checked.output
