"""training/build_toybox_flow.py in miniature: it trains, goes on, and packs a folder that loads."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from training import build_toybox_flow as build
from training import package_toybox_flow
from training.diffusion_networks import CHANNELS
from training.flow_networks import (
    JOINT_WIDTH,
    T5_SHORT,
    JointAttention,
    clip_tokenizer,
    new_transformer,
    read_by_blocks,
    silent_t5,
    small_clip,
    text_states,
)
from training.flow_optimiser import Muon
from training.flow_training import PARTS
from understudy.files.builtin import builtin_folder
from understudy.models.registry import load
from understudy.models.shared_parts import FILE, SHARED, TEXT_ENCODER, whole_folder
from understudy.models.transformer.model import FlowTransformer


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four random pictures in the place of the rendered ones."""
    draws = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, CHANNELS, 16, 16, generator=draws)
    parts, masks = torch.rand(4, len(PARTS), 8, 8), torch.ones(4, 1, 16, 16)
    texts = ["a pink cat", "a dog"] * 4
    ids = clip_tokenizer()(texts, padding="max_length", return_tensors="pt").input_ids
    monkeypatch.setattr(build, "render", lambda options: 4)
    monkeypatch.setattr(build, "encode_all", lambda *_: latents)
    monkeypatch.setattr(build, "load_masks", lambda folder, most: masks)
    monkeypatch.setattr(build, "load_parts", lambda folder, most, cells: parts)
    monkeypatch.setattr(build, "load_captions", lambda folder, most: ids.unflatten(0, (4, 2)))


def test_it_trains_goes_on_and_packs(few: None, tmp_path: Path) -> None:
    """A run of two steps that goes on to three gives what one of three steps gives."""
    told = ["--device", "cpu", "--batch", "2", "--patch", "2"]

    def run(name: str, steps: int) -> dict[str, Any]:
        build.main([*told, "--out", str(tmp_path / name), "--steps", str(steps)])
        return torch.load(tmp_path / name / "flow.pt")

    run("run", 2)
    state, whole = run("run", 3), run("whole", 3)
    assert state["step"] == 3
    learnt = {
        name
        for name, value in state["model"].items()
        if not torch.equal(value, whole["model"][name])
    }
    assert not learnt
    folder = tmp_path / "run" / "toybox-flow"
    assert sum(file.stat().st_size for file in folder.rglob("*")) < 35e6
    model = load(str(folder), device="cpu")
    assert model.latent_channels == CHANNELS and model.picture_size == (128, 128)
    assert stock_agrees(model, folder)
    _check_packaging(folder, tmp_path)


def _check_packaging(folder: Path, tmp_path: Path) -> None:
    """The package's part of a folder, made whole again, is the folder, byte for byte."""
    part, other = tmp_path / "package" / "toybox-flow", builtin_folder("toybox")
    assert other is not None
    for _ in range(2):  # the second time in the place of the first
        package_toybox_flow.main(["--folder", str(folder), "--out", str(part)])
    assert [one.name for one in part.parent.iterdir()] == ["toybox-flow"]
    whole = whole_folder("small", part, other)
    assert folder_bytes(whole) == folder_bytes(folder)
    assert "trained from scratch" in (whole / "README.md").read_text()
    missing = folder_bytes(folder).keys() - folder_bytes(part).keys()
    assert missing == {*SHARED}
    shutil.copy(folder / "text_encoder_2/model.safetensors", folder / TEXT_ENCODER)
    with pytest.raises(SystemExit, match="another autoencoder, text encoder"):
        package_toybox_flow.main(["--folder", str(folder), "--out", str(part)])
    assert whole_folder("small", part, other) == whole


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their paths in it."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != FILE)
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_matrices_are_orthogonalised_as_in_torch() -> None:
    """Ours works on all matrices of a shape at once; torch.optim.Muon is the reference."""
    torch.manual_seed(0)
    start = [torch.randn(6, 9), torch.randn(6, 9), torch.randn(9, 4)]
    slopes = [[torch.randn_like(one) for one in start] for _ in range(3)]
    ours, theirs = ([torch.nn.Parameter(one.clone()) for one in start] for _ in range(2))
    muon: Any = Muon(ours, 0.02)
    stock = torch.optim.Muon(
        theirs, lr=0.02, weight_decay=0.01, adjust_lr_fn="match_rms_adamw", nesterov=True
    )
    for step in slopes:
        for a, b, slope in zip(ours, theirs, step, strict=True):
            a.grad, b.grad = slope.clone(), slope.clone()
        muon.step()
        stock.step()
    for a, b, begun in zip(ours, theirs, start, strict=True):
        assert (a - b).norm() < 0.03 * (b - begun).norm()  # bfloat16


def test_a_pass_over_the_blocks_is_the_stock_forward() -> None:
    torch.manual_seed(0)
    for patch in (1, 2):
        network = new_transformer(patch)
        for value in network.parameters():
            if value.unique().numel() == 1:
                torch.nn.init.normal_(value, std=0.1)
        x, sigma = torch.randn(2, CHANNELS, 16, 16), torch.tensor([0.3, 0.8])
        states, pooled = torch.randn(2, 5, JOINT_WIDTH), torch.randn(2, JOINT_WIDTH)
        with torch.no_grad():
            found, middle = read_by_blocks(network, x, sigma, states, pooled)
            right = network(x, states, pooled, sigma * 1000, return_dict=False)[0]
        assert torch.allclose(found, right, atol=1e-5)
        assert middle.shape[1] == (16 // patch) ** 2


def stock_agrees(model: FlowTransformer, folder: Path) -> bool:
    """Whether diffusers' pipeline draws the same, with as many of T5's rows as ours."""
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    prompt = "a photo of a spotted pink cat with a red hat standing on a meadow"
    noise = torch.randn(1, CHANNELS, 16, 16, generator=torch.Generator().manual_seed(0))
    told = {"num_inference_steps": 2, "guidance_scale": 3.0, "latents": noise}
    drawn = pipeline(prompt, max_sequence_length=T5_SHORT, output_type="latent", **told).images
    schedule = model.schedule.times(2, 64)
    ours = noise
    with torch.no_grad():
        text, empty = model.embed([prompt]), model.embed([""])
        for start, end in pairwise(schedule):
            cond, uncond = (model.predict(ours, start, t) for t in (text, empty))
            ours = ours + (end - start) * (uncond + 3.0 * (cond - uncond))
    return bool(torch.allclose(ours, drawn.float(), atol=1e-4))


@pytest.mark.parametrize("copies", [8, 256])
def test_one_row_of_zeros_stands_for_all_of_them(copies: int) -> None:
    """What training computes is what the stock transformer gives for that many rows of T5."""
    torch.manual_seed(0)
    network = new_transformer(2)
    for value in network.parameters():
        if value.unique().numel() == 1:
            torch.nn.init.normal_(value, std=0.1)
    clip, own = small_clip(), small_clip()  # of any width, as long as they fit together
    ids = clip_tokenizer()(["a pink cat"], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        states, pooled = text_states(clip, own, ids)
        assert silent_t5()(torch.tensor([[5, 7, 1]]))[0].abs().max() == 0
        wide = torch.nn.functional.pad(states, (0, JOINT_WIDTH - states.shape[-1]))
        pooled = torch.nn.functional.pad(pooled, (0, JOINT_WIDTH - pooled.shape[-1]))
        x, time = torch.randn(1, CHANNELS, 16, 16), torch.tensor([700.0])
        rows = wide[:, -1:].expand(-1, copies, -1)
        full = network(x, torch.cat([wide[:, :-1], rows], 1), pooled, time, return_dict=False)[0]
        processor = JointAttention()
        processor.stand_for(copies)
        for block in network.transformer_blocks:
            block.attn.set_processor(processor)
        assert torch.allclose(network(x, wide, pooled, time, return_dict=False)[0], full, atol=1e-5)
