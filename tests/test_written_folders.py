"""Folders that we write: loaded by diffusers, and trained by the steps of its training scripts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from test_single_file import beside_a_tokenizer
from tiny import tiny_folder, tiny_model
from understudy.cli import main
from understudy.models.parts import check_model
from understudy.models.write_folder import write_folder


def train_one_step(folder: Path, part: str = "text_encoder") -> float:
    """One optimiser step as examples/dreambooth/train_dreambooth.py takes it, with
    --train_text_encoder and without mixed precision; how far the step moved a weight."""
    import transformers
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import AutoTokenizer, PretrainedConfig

    said = PretrainedConfig.from_pretrained(folder, subfolder=part).architectures[0]
    assert said == {"text_encoder": "CLIPTextModel"}.get(part, "CLIPTextModelWithProjection")
    tokenizer = AutoTokenizer.from_pretrained(
        folder, subfolder=part.replace("text_encoder", "tokenizer"), use_fast=False
    )
    schedule: Any = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    text: Any = getattr(transformers, said).from_pretrained(folder, subfolder=part)
    vae: Any = AutoencoderKL.from_pretrained(folder, subfolder="vae")
    unet: Any = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    for network in (unet, text):  # the script refuses to start with anything else
        assert {p.dtype for p in network.parameters()} == {torch.float32}
    parameters = [*unet.parameters(), *text.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    ids = tokenizer(
        "a photo of sks dog", truncation=True, padding="max_length",
        max_length=tokenizer.model_max_length, return_tensors="pt",
    ).input_ids  # fmt: skip
    latents = vae.encode(torch.zeros(1, 3, 32, 32)).latent_dist.mean * vae.config.scaling_factor
    noise, times = torch.randn_like(latents), torch.tensor([500])
    noisy = schedule.add_noise(latents, noise, times)
    if part == "text_encoder_2":  # its width alone is not what XL's U-Net reads
        assert text(ids).text_embeds.shape == (1, text.config.projection_dim)
        return 1.0
    output = unet(noisy, times, text(ids)[0], return_dict=False)[0]
    v = schedule.config.prediction_type == "v_prediction"
    target = schedule.get_velocity(latents, noise, times) if v else noise
    before = parameters[0].detach().clone()
    F.mse_loss(output.float(), target.float()).backward()
    optimizer.step()
    return float((parameters[0].detach() - before).abs().max())


@pytest.mark.parametrize("kind", ["sd15", "sd21", "toy"])
def test_a_training_script_trains_what_we_write(kind: str, tmp_path: Path) -> None:
    folder = write_folder(tiny_model(kind), tmp_path / "out", dtype=torch.float32)
    assert train_one_step(folder) > 0
    check_model(folder)
    told = json.loads((folder / "text_encoder" / "config.json").read_text())
    assert told["torch_dtype"] == told["dtype"] == "float32"


def test_what_is_written_in_half_precision_says_so(tmp_path: Path) -> None:
    folder = write_folder(tiny_model("sd15"), tmp_path / "out", dtype=torch.float16)
    told = json.loads((folder / "text_encoder" / "config.json").read_text())
    assert told["torch_dtype"] == told["dtype"] == "float16"


def test_both_text_encoders_of_xl_are_found_by_their_class(tmp_path: Path) -> None:
    folder = write_folder(tiny_model("sdxl"), tmp_path / "out", dtype=torch.float32)
    assert train_one_step(folder, "text_encoder_2") == 1.0


def test_parts_without_weights_are_not_announced(tmp_path: Path) -> None:
    """A folder of the hub's cache has the safety checker's settings, not its weights."""
    from diffusers import DiffusionPipeline

    from understudy.models.unet.stable_diffusion import StableDiffusion

    source = Path(shutil.copytree(tiny_folder("sd15"), tmp_path / "in"))
    (source / "safety_checker").mkdir()
    (source / "safety_checker" / "config.json").write_text("{}")
    index = json.loads((source / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (source / "model_index.json").write_text(json.dumps(index))
    folder = write_folder(StableDiffusion.from_folder(source), tmp_path / "out")
    assert not (folder / "safety_checker").exists()
    assert DiffusionPipeline.from_pretrained(folder).components["safety_checker"] is None


@pytest.mark.parametrize(
    ("kind", "name"), [("sd15", "v1.ckpt"), ("sd21", "v2.safetensors"), ("sdxl", "xl.safetensors")]
)
def test_a_converted_file_is_a_pipeline_to_diffusers(kind: str, name: str, here: Path) -> None:
    from diffusers import DiffusionPipeline

    file = beside_a_tokenizer(here, kind, name)
    assert main(["models", "convert", str(file), "--out", str(here / "out")]) == 0
    pipeline = DiffusionPipeline.from_pretrained(here / "out")
    assert pipeline.unet.config.sample_size in (64, 96, 128)
    if kind != "sdxl":
        assert train_one_step(here / "out") > 0
