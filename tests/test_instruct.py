"""Editing by instruction: the same latents as diffusers' pipelines of Kontext and FLUX.2."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tiny import _session
from tiny_flow import stock_pipeline, tiny_flow_folder
from understudy import cli
from understudy.attention.plan import AttentionPlan
from understudy.attention.site import AttentionSite
from understudy.edit import instruct_steps
from understudy.errors import InputError
from understudy.models.transformer.model import FlowTransformer
from understudy.models.transformer.packing import packed, unpacked
from understudy.settings import EditSettings
from understudy.transfer.source_target import Target

SAYS = "make the cat a dog"


class Plain:
    """A control that only listens."""

    def __init__(self) -> None:
        self.sites: list[AttentionSite] = []

    def plan(self, site: AttentionSite) -> AttentionPlan:
        self.sites.append(site)
        return AttentionPlan()


@cache
def kontext() -> Path:
    """The tiny FLUX.1 with the index of FLUX.1 Kontext: their networks have the same layers."""
    folder = _session() / "kontext"
    shutil.copytree(tiny_flow_folder("flux"), folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(
        json.dumps(index | {"_class_name": "FluxKontextPipeline"})
    )
    return folder


def model_of(kind: str) -> FlowTransformer:
    folder = kontext() if kind == "kontext" else tiny_flow_folder(kind)
    return FlowTransformer.from_folder(folder, device="cpu")


def instructed(model: Any, latents: Any, *references: Any, targets: Any = SAYS, **how: Any) -> Any:
    settings = EditSettings.filled({"method": "instruct", "steps": 3, "guidance": 2.5, **how})
    return list(instruct_steps(model, latents, targets, settings, references=references))


def drawn(seed: int, *size: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1


def noise_of(model: Any, latents: Any) -> torch.Tensor:
    stream = torch.Generator().manual_seed(0)
    return torch.randn(latents.shape[1:], generator=stream)[None]


def test_kontext_gives_the_latents_of_its_pipeline() -> None:
    from diffusers import FluxKontextPipeline

    model = model_of("kontext")
    pipe: Any = FluxKontextPipeline(**stock_pipeline("flux").components)
    pipe.set_progress_bar_config(disable=True)
    latents = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(1))
    expected = pipe(
        image=latents, prompt=SAYS, height=16, width=24, max_area=16 * 24, _auto_resize=False,
        latents=packed(noise_of(model, latents)), num_inference_steps=3, guidance_scale=2.5,
        output_type="latent", return_dict=False, max_sequence_length=24,
    )[0]  # fmt: skip
    found = instructed(model, latents)[-1].target
    assert torch.allclose(found, unpacked(expected, latents.shape), atol=2e-5)
    assert not torch.allclose(found, instructed(model, latents + 1)[-1].target, atol=1e-2)


@pytest.mark.parametrize("kind", ["flux2", "klein"])
def test_flux2_gives_the_result_of_its_pipeline(kind: str) -> None:
    """With two pictures of different shapes; klein with an unconditional row."""
    model, pipe = model_of(kind), stock_pipeline(kind)
    pictures = [drawn(1, 64, 96), drawn(2, 64, 64)]
    with torch.no_grad():
        latents, other = (model.encode(tensor(one)) for one in pictures)
    told: dict[str, Any] = {"prompt_embeds": model.embed([SAYS]).tokens}
    if kind == "klein":
        told["negative_prompt_embeds"] = model.embed([""]).tokens
    told["output_type"] = "latent" if kind == "flux2" else "pt"  # klein gives others as latents
    with torch.no_grad():
        expected = pipe(
            image=pictures, height=64, width=96, num_inference_steps=3, guidance_scale=2.5,
            return_dict=False, latents=noise_of(model, latents), **told,
        )[0]  # fmt: skip
        found = instructed(model, latents, other)[-1].target
        drawn_by_us = (model.decode(found) + 1) / 2
    ours = found.flatten(2).transpose(1, 2) if kind == "flux2" else drawn_by_us
    assert torch.allclose(ours, expected, atol=5e-5)
    assert not torch.allclose(found, instructed(model, latents)[-1].target, atol=1e-3)


@pytest.mark.parametrize("kind", ["kontext", "klein"])
def test_references_reach_attention_control(kind: str) -> None:
    """A control that changes nothing gives the same velocity; a reference is told apart."""
    model = model_of(kind)
    latents, reference = torch.randn(2, model.latent_channels, 8, 4), torch.randn(1, 1, 4, 6)
    reference = reference.expand(1, model.latent_channels, 4, 6)
    text = model.embed([SAYS, "a cat"])
    with torch.no_grad():
        plain = model.predict(latents, 0.5, text, references=[reference])
        controlled = model.predict(latents, 0.5, text, Plain(), references=[reference])
        without = model.predict(latents, 0.5, text)
        one = model.predict(latents[:1], 0.5, text[[0]], references=[reference])
    assert torch.allclose(plain, controlled, atol=1e-6)
    assert torch.allclose(plain[:1], one, atol=1e-5)
    assert not torch.allclose(plain, without, atol=1e-3)


@pytest.mark.parametrize("kind", ["sd35", "flux", "chroma", "qwen", "zimage", "kontext"])
def test_references_that_no_row_would_read_are_refused(kind: str) -> None:
    model = model_of(kind)
    latents = torch.randn(1, model.latent_channels, 8, 8)
    most = 1 if kind == "kontext" else 0
    with pytest.raises(
        InputError, match=f"reads at most {most} reference pictures. Got {most + 1}"
    ):
        model.predict(latents, 0.5, model.embed([SAYS]), references=[latents] * (most + 1))


def test_targets_share_the_noise_and_a_mask_keeps_the_photo() -> None:
    model = model_of("kontext")
    latents = torch.randn(1, 4, 8, 8)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    both = instructed(model, latents, targets=[Target(SAYS, mask=mask), Target("a cat", mask=mask)])
    alone = instructed(model, latents)
    assert len(both) == 3 and [step.nfe for step in both] == [2, 2, 2]
    found = both[-1].target
    assert torch.equal(found[..., 4:], latents.expand(2, -1, -1, -1)[..., 4:])
    assert torch.allclose(found[:1, ..., :4], alone[-1].target[..., :4], atol=1e-5)


@pytest.mark.parametrize(("kind", "references", "match"), [
    ("flux", 0, "needs a model that reads reference pictures: FLUX.1 Kontext or FLUX.2"),
    ("sd35", 0, "was not trained to"),
    ("kontext", 1, "reads at most 1 reference pictures, the photo included. Got 2"),
])  # fmt: skip
def test_models_without_references_refuse(kind: str, references: int, match: str) -> None:
    model = model_of(kind)
    latents = torch.randn(1, 4, 8, 8)
    with pytest.raises(InputError, match=match):
        instructed(model, latents, *[latents] * references)


def test_the_command_edits_by_instruction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, other, out = (tmp_path / name for name in ("photo.png", "toy.png", "out.png"))
    drawn(1, 40, 32).save(photo)
    drawn(2, 64, 100).save(other)
    told = ["edit", str(photo), "--prompt", "a cat", "--to", "the cat is the dog of picture 2",
            "--method", "instruct", "--reference", str(other), "--steps", "2", "--region", "full",
            "--model", str(tiny_flow_folder("klein")), "--out", str(out)]  # fmt: skip
    assert cli.main(told) == 0
    with Image.open(out) as picture:
        assert picture.size == (32, 40)
    assert cli.main([*told, "--method", "flowedit"]) == 2
    assert "--reference goes with --method instruct alone" in capsys.readouterr().err


def test_the_bench_shows_the_photos_of_the_toy(tmp_path: Path) -> None:
    from understudy.evaluate.bench import BenchCase
    from understudy.evaluate.methods import METHODS
    from understudy.evaluate.setup import Setup

    model = model_of("klein")
    source, *photos = (tensor(drawn(seed, 32, 32)) for seed in range(4))
    case = BenchCase("one", 1, "toy", "dog", torch.cat(photos), source, "a photo of a cat", "cat")
    method, setup = METHODS["instruct-photos"], Setup(model, {"edit": {"steps": 2}}, tmp_path)
    found = method.make(case, setup)
    says = "replace the cat in picture 1 with the dog in pictures 2 to 4"
    with torch.no_grad():
        latents, *seen = (model.encode(one) for one in (source, *photos))
        last = instructed(model, latents, *seen, targets=says, steps=2, guidance=4.0)[-1]
        assert torch.allclose(found, model.decode(last.target), atol=1e-6)
    assert method.facts(setup)["edit"]["method"] == "instruct"
