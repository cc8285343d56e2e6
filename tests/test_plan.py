"""What a run needs, printed before anything is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

import tiny_flow
from test_flow_models import PROMPTS
from understudy import load_model
from understudy.cli.app import app
from understudy.diffusion.text import Text
from understudy.errors import InputError
from understudy.generate import generate
from understudy.models.plan import WORDS, plan_of
from understudy.models.registry import here
from understudy.models.transformer.model import FlowTransformer
from understudy.settings import GenerateSettings
from understudy.settings.bases import BASES, check_trainable, trained_instead

# Billions of weights and TMAC of one row at 1024 x 1024, counted independently from the blocks'
# matrix products (64 tokens of text for Qwen-Image and Z-Image). Z-Image without its two refiners
# of the image is 26.1.
COUNTS = {
    "stabilityai/stable-diffusion-3.5-medium": (2.24, 5.6),
    "stabilityai/stable-diffusion-3.5-large": (8.06, 15.6),
    "black-forest-labs/FLUX.1-dev": (11.9, 37.2),
    "black-forest-labs/FLUX.2-dev": (32.2, 141),
    "Qwen/Qwen-Image": (20.4, 34.6),
    "Tongyi-MAI/Z-Image": (6.15, 27.8),
}


@pytest.mark.parametrize(
    "name",
    [name if "FLUX.2" in name else pytest.param(name, marks=pytest.mark.slow) for name in COUNTS],
)
def test_real_sizes_are_those_that_were_counted_by_hand(name: str) -> None:
    plan = plan_of(name, None, "bfloat16")
    weights, row = COUNTS[name]
    assert plan.weights["transformer"] / 1e9 == pytest.approx(weights, rel=0.02)
    assert plan.row / 1e12 == pytest.approx(row, rel=0.02)
    assert plan.memory > 2 * plan.weights["transformer"]
    assert plan.licence


def test_every_published_base_can_be_planned_and_names_a_base_that_can_be_trained() -> None:
    known = {base.hub_id: base for base in BASES}
    for base in BASES:
        assert base.licence
        if base.train_on:
            assert not known[base.train_on].train_on
            with pytest.raises(InputError, match=base.train_on):
                check_trainable(base.hub_id)
        else:
            check_trainable(base.hub_id)


def test_distilled_folders_are_told_by_what_they_say(tmp_path: Path) -> None:
    assert trained_instead(str(tiny_flow.tiny_flow_folder("schnell"))).endswith("FLUX.1-dev")
    assert not trained_instead(str(tiny_flow.tiny_flow_folder("flux")))
    assert not trained_instead(str(tiny_flow.tiny_flow_folder("klein")))
    folder = shutil.copytree(tiny_flow.tiny_flow_folder("klein"), tmp_path / "mine")
    file = folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"is_distilled": True}))
    assert trained_instead(str(folder)).endswith("klein-base-4B")
    assert trained_instead(str(tmp_path / "Z-Image-Turbo")) == "Tongyi-MAI/Z-Image"
    assert not trained_instead("toybox")


def test_learning_on_a_distilled_folder_ends_before_it_is_loaded(here: Path) -> None:
    (here / "photos").mkdir()
    folder = str(tiny_flow.tiny_flow_folder("schnell"))
    said = CliRunner().invoke(
        app, ["learn", "photos", "--class", "cat", "--name", "rex", "--model", folder]
    )
    assert isinstance(said.exception, InputError)
    assert "black-forest-labs/FLUX.1-dev" in str(said.exception)


@pytest.mark.parametrize("kind", ["sd35", "flux"])
@torch.no_grad()
def test_the_plan_counts_the_rows_that_a_run_evaluates(kind: str) -> None:
    model, folder = tiny_flow.tiny_flow(kind), tiny_flow.tiny_flow_folder(kind)
    arguments = ["generate", "a", "--model", str(folder), "--steps", "3", "--guidance", "2"]
    said = CliRunner().invoke(app, [*arguments, "--count", "2", "--show-plan", "--json"])
    assert said.exit_code == 0, said.output
    found = json.loads(said.output)
    before = model.nfe
    generate(model, PROMPTS, [0, 1], GenerateSettings(steps=3, guidance=2.0))
    assert found["rows"] == model.nfe - before
    own = sum(value.numel() for value in model.networks["transformer"].state_dict().values())
    assert found["weights"]["transformer"] == own
    assert found["row_tmac"] >= 0


@pytest.mark.parametrize("kind", [*tiny_flow.KINDS, "toybox-flow"])
@torch.no_grad()
def test_the_plan_counts_the_tokens_and_products_of_a_call(kind: str) -> None:
    """Against one call of the loaded model: its tokens, and the products of its matrices."""
    model = load_model(kind) if kind == "toybox-flow" else tiny_flow.tiny_flow(kind)
    plan = plan_of(model.name, model.folder)
    height, width = (side // model.downscale for side in model.picture_size)
    image = (height // model.network.patch) * (width // model.network.patch)
    text = model.embed(["a cat"])
    if kind in ("qwen", "zimage"):  # as many tokens as the prompt has
        text = Text(text.tokens.new_zeros(1, WORDS, text.tokens.shape[-1]))
    assert plan.tokens == (image, text.tokens.shape[1])
    if kind == "qwen":
        return  # its autoencoder says no size, and a call at 1024 x 1024 takes a minute
    latents, counter = torch.zeros(1, model.latent_channels, height, width), FlopCounterMode()
    counter.display = False
    with counter, sdpa_kernel(SDPBackend.MATH):  # the counter does not know the CPU's fused kernel
        model.predict(latents, 0.5, text)
    assert plan.row == counter.get_total_flops() / 2


def test_places_of_the_text_follow_the_folder(tmp_path: Path) -> None:
    """A tokenizer that says a smaller length, and a CLIP with fewer positions."""
    folder = shutil.copytree(tiny_flow.tiny_flow_folder("sd35"), tmp_path / "short")
    assert plan_of(str(folder), folder).tokens[1] == 77 + 24
    file = folder / "tokenizer_3" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": 8}))
    assert plan_of(str(folder), folder).tokens[1] == 77 + 8
    file = folder / "tokenizer" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": 40}))
    assert plan_of(str(folder), folder).tokens[1] == 40 + 8
    assert FlowTransformer.from_folder(folder).embed(["a"]).tokens.shape[1] == 40 + 8
    assert plan_of("toybox-flow", here("toybox-flow")).tokens == (256, 40 + 8)


def test_a_distilled_klein_has_one_row_per_step(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_flow.tiny_flow_folder("klein"), tmp_path / "mine")
    assert plan_of(str(folder), folder).guided
    file = folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"is_distilled": True}))
    assert not plan_of(str(folder), folder).guided
    assert not plan_of("black-forest-labs/FLUX.2-klein-4B", None).guided
    assert not FlowTransformer.from_folder(folder).guidance.kind == "cfg"


def test_the_plan_of_a_hub_id_wants_no_download_and_no_prompt() -> None:
    said = CliRunner().invoke(
        app, ["generate", "--model", "black-forest-labs/FLUX.1-schnell", "--dtype", "bfloat16",
              "--show-plan"]
    )  # fmt: skip
    assert said.exit_code == 0, said.output
    for words in ("Apache-2.0", "accept", "33.7", "FLUX.1-dev"):
        assert words in said.output


def test_every_flow_family_has_default_settings() -> None:
    from understudy.models.family import FAMILIES
    from understudy.settings import families

    for family in FAMILIES:
        for pipeline in family.pipelines if family.flows else ():
            assert any(pipeline.startswith(known) for known in families.FAMILIES), pipeline


@pytest.mark.parametrize(
    ("pipeline", "name"),
    [
        ("StableDiffusionPipeline", "Stable Diffusion"),
        ("StableDiffusionXLImg2ImgPipeline", "Stable Diffusion XL"),
        ("StableDiffusion3Pipeline", "Stable Diffusion 3"),
        ("FluxPipeline", "FLUX.1"),
        ("FluxFillPipeline", None),
        ("StableDiffusion3ControlNetPipeline", None),
    ],
)
def test_a_pipeline_class_names_its_family(pipeline: str, name: str | None) -> None:
    from understudy.models.family import family_named

    found = family_named(pipeline)
    assert (found and found.name) == name
