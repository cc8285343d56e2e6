"""training/build_toybox_flow.py in miniature: it trains, goes on, and packs a folder that loads."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from training import build_toybox_flow as build
from training.diffusion_networks import CHANNELS
from training.flow_networks import (
    JOINT_WIDTH,
    T5_SHORT,
    JointAttention,
    clip_tokenizer,
    new_transformer,
    silent_t5,
    small_clip,
    text_states,
)
from understudy.models.registry import load
from understudy.models.transformer.model import FlowTransformer
from understudy.toybox import sample_scene


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four random pictures in the place of the rendered ones, and steps instead of minutes."""
    draws = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, CHANNELS, 16, 16, generator=draws)
    monkeypatch.setattr(build, "encode_all", lambda *_: latents)
    monkeypatch.setattr(build, "load_masks", lambda folder, most: torch.ones(4, 1, 16, 16))
    parts = torch.rand(4, len(build.PARTS), 8, 8)
    monkeypatch.setattr(build, "load_parts", lambda folder, most: parts)
    monkeypatch.setattr(build, "load_scenes", lambda f, m: [sample_scene(n) for n in range(4)])
    # A minute stands for a step.
    monkeypatch.setattr(build, "by_time", lambda learner, until: iter(range(round(until / 60))))


def test_it_trains_goes_on_and_packs(few: None, tmp_path: Path) -> None:
    where = ["--out", str(tmp_path / "run"), "--device", "cpu", "--batch", "2"]
    build.main(["train", *where, "--minutes", "2"])
    build.main(["train", *where, "--minutes", "1"])
    state = torch.load(tmp_path / "run" / "flow.pt")
    assert state["step"] == 3
    folder = tmp_path / "flow"
    build.main(["pack", *where, "--folder", str(folder), "--dtype", "float16"])
    assert sum(file.stat().st_size for file in folder.rglob("*")) < 21e6
    model = load(str(folder), device="cpu")
    assert model.latent_channels == CHANNELS and model.picture_size == (128, 128)
    assert _stock_agrees(model, folder)


def _stock_agrees(model: FlowTransformer, folder: Path) -> bool:
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
        processor.copies = copies
        for block in network.transformer_blocks:
            block.attn.set_processor(processor)
        assert torch.allclose(network(x, wide, pooled, time, return_dict=False)[0], full, atol=1e-5)
