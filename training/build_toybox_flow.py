#!/usr/bin/env python
"""Train toybox-flow: a Stable Diffusion 3 folder for the toy world, from scratch, on CPU or CUDA.

    python -m training.build_toybox_data build/toybox --count 24000
    python -m training.build_toybox_flow train --minutes 60
    python -m training.build_toybox_flow pack --folder build/toybox-flow

The autoencoder and the text encoder are those of toybox-diffusion; the transformer is new, see
`flow_networks.py`. `train` keeps checkpoints (temporary name, then rename) and goes on where it
stopped, for as many more minutes as one likes: the learning rate is constant and falls in the last
fifth of each run. `pack` writes the averaged weights as a genuine StableDiffusion3Pipeline folder.
--patch 2 makes a step about four times cheaper, for training on a CPU.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler

from training.autoencoder_training import encode_all
from training.flow_networks import (
    JointAttention,
    clip_tokenizer,
    new_transformer,
    shipped_clip,
    silent_t5,
    small_clip,
    t5_tokenizer,
)
from training.flow_training import (
    PARTS,
    Batch,
    Examples,
    MuonAndAdamW,
    draw_sigmas,
    flow_loss,
    load_parts,
    set_copies,
)
from training.learner import Learner, by_time, default_device, fit
from training.toybox_pictures import load_masks, load_scenes
from understudy.models.precision import half_precision

CHECKED = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.98)  # sigmas of the fixed check
PART_WEIGHT = 3.0


def new_model(patch: int) -> torch.nn.ModuleDict:
    """What is trained: the transformer, the second text encoder, and the layer of the parts."""
    transformer = new_transformer(patch)
    width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    return torch.nn.ModuleDict({
        "transformer": transformer,
        "text_encoder_2": small_clip(),
        "parts": torch.nn.Linear(width, len(PARTS)),
    })  # fmt: skip


def new_learner(options: argparse.Namespace, size: float) -> Learner:
    """From the last checkpoint, else from scratch."""
    torch.manual_seed(0)
    model = new_model(options.patch).to(options.device)
    optimizer: Any = MuonAndAdamW(model.named_parameters(), options.rate)
    learner = Learner(model, optimizer, size, memory=0.9995)
    learner.load(options.out / "flow.pt", options.device)
    return learner


def shipped_autoencoder(options: argparse.Namespace) -> AutoencoderKL:
    """The autoencoder of toybox-diffusion, frozen."""
    vae = AutoencoderKL.from_pretrained(options.package / "vae").float()
    return vae.eval().requires_grad_(False)


def load_examples(options: argparse.Namespace, vae: Any) -> Examples:
    most = (options.data, options.most)
    return Examples(
        encode_all(options.data, options.out, options.most, vae), load_masks(*most),
        load_parts(*most), load_scenes(*most), clip_tokenizer(),
    )  # fmt: skip


def moved(batch: Batch, size: float, device: str) -> Batch:
    """The batch on a device, its latents of unit size."""
    clean, masks, parts, ids = batch.clean / size, batch.masks, batch.parts, batch.ids
    return Batch(*(part.to(device) for part in (clean, masks, parts, ids)))


def train(options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    examples = load_examples(options, shipped_autoencoder(options).to(options.device))
    learner = new_learner(options, float(examples.latents[0].float().square().mean().sqrt()))
    clip, model = shipped_clip(options.package / "text_encoder").to(options.device), learner.model
    spread = examples.latents[0, ::10].float().std((0, 2, 3)).to(options.device)
    channels = spread / spread.mean()
    count = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{len(examples.scenes)} pictures, {count:.2f} M parameters, step {learner.step}",
          flush=True)  # fmt: skip
    rng, processor = np.random.default_rng(learner.step), JointAttention()
    for block in model["transformer"].transformer_blocks:
        block.attn.set_processor(processor)
    if options.compile:
        model["transformer"].compile_repeated_blocks()
    fixed = moved(examples.draw(64, np.random.default_rng(1)), learner.size, options.device)
    device = torch.device(options.device)
    half = half_precision(device) is not None and device.type != "cpu"

    def losses(batch: Batch, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            return flow_loss(model, clip, batch, channels, sigma.to(device))

    def loss() -> torch.Tensor:
        if learner.step % 100 == 0:
            check()
        set_copies(processor, rng)
        batch = moved(examples.draw(options.batch, rng), learner.size, options.device)
        velocity, parts = losses(batch, draw_sigmas(options.batch))
        return velocity.mean() + PART_WEIGHT * parts.mean()

    @torch.no_grad()
    def check() -> None:
        """The same examples at fixed sigmas: a line of what the weights reach."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            sigma = torch.tensor(CHECKED).repeat_interleave(len(fixed.clean) // len(CHECKED))
            velocity, parts = losses(fixed, sigma)
        found = [round(float(v), 4) for v in velocity.unflatten(0, (len(CHECKED), -1)).mean(1)]
        line = {"step": learner.step, "velocity": found, "parts": round(float(parts.mean()), 5)}
        with (options.out / "fixed.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def rate(share: float) -> float:
        warm = min(1.0, (learner.step + 1) / 100)
        return options.rate * warm * min(1.0, 0.05 + 5 * (1 - share))

    torch.manual_seed(learner.step)
    begun, seconds = learner.spent, 60 * options.minutes
    shares = ((learner.spent - begun) / seconds for _ in by_time(learner, begun + seconds))
    path = options.out / "flow.pt"
    fit(learner, lambda: [loss()], rate, shares, path, batch=options.batch)


def pack(options: argparse.Namespace) -> None:
    """Write the averaged weights as a StableDiffusion3Pipeline folder."""
    from diffusers import StableDiffusion3Pipeline

    vae, learner = shipped_autoencoder(options), new_learner(options, 1)
    vae.register_to_config(scaling_factor=1 / learner.size, shift_factor=0.0)
    learner.model.load_state_dict(learner.ema)
    pipeline = StableDiffusion3Pipeline(
        vae=vae, transformer=learner.model["transformer"],
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        text_encoder=shipped_clip(options.package / "text_encoder"), tokenizer=clip_tokenizer(),
        text_encoder_2=learner.model["text_encoder_2"], tokenizer_2=clip_tokenizer(),
        text_encoder_3=silent_t5(), tokenizer_3=t5_tokenizer(),
    )  # fmt: skip
    pipeline.to(dtype=getattr(torch, options.dtype)).save_pretrained(options.folder)
    print(f"step {learner.step} packed into {options.folder}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("stage", choices=("train", "pack"))
    parser.add_argument("--data", type=Path, default=Path("build/toybox"))
    parser.add_argument("--out", type=Path, default=Path("build/flow"))
    parser.add_argument("--folder", type=Path, default=Path("build/toybox-flow"))
    package = Path("src/understudy/weights/toybox-diffusion")
    parser.add_argument("--package", type=Path, default=package,
                        help="whose autoencoder and text encoder are used")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--most", type=int, default=24000, help="pictures to use at most")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak learning rate")
    parser.add_argument("--patch", type=int, default=2, choices=(1, 2))
    parser.add_argument("--compile", action="store_true", help="compile the transformer's blocks")
    parser.add_argument("--dtype", default="float16", choices=("float16", "float32"))
    parser.add_argument("--device", default=default_device())
    options = parser.parse_args(arguments)
    {"train": train, "pack": pack}[options.stage](options)


if __name__ == "__main__":
    main()
