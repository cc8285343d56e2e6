#!/usr/bin/env python
"""Make toybox-flow, a Stable Diffusion 3 folder for the toy world, on CPU or CUDA.

    python -m training.build_toybox_flow --minutes 60 --out build/flow

Renders the training pictures (`build_toybox_data.py`), encodes them with the autoencoder of
toybox-diffusion, trains the transformer (`flow_networks.py`) and writes the averaged weights as a
genuine StableDiffusion3Pipeline folder with its model card, OUT/toybox-flow. The text encoder is
that of toybox-diffusion, frozen. `package_toybox_flow.py` puts the folder into the package.
--minutes are of training, all runs together; a killed run goes on where its last checkpoint was.
--patch 2 makes a step about four times cheaper, for training on a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from training.autoencoder_training import encode_all
from training.build_toybox_data import render_all
from training.flow_card import card
from training.flow_networks import (
    T5_LONG,
    T5_SHORT,
    JointAttention,
    clip_tokenizer,
    new_transformer,
    shipped_clip,
    silent_t5,
    small_clip,
    t5_tokenizer,
)
from training.flow_optimiser import MuonAndAdamW
from training.flow_training import PART_WEIGHT, PARTS, Batch, Examples, flow_loss, load_parts
from training.learner import Learner, by_steps, by_time, default_device, fit, generator_of
from training.toybox_pictures import count_pictures, load_captions, load_masks
from understudy.files.atomic import remove_folder
from understudy.files.builtin import builtin_folder
from understudy.jobs.execution import tf32
from understudy.models.precision import half_precision
from understudy.models.shared_parts import write_made

CHECKED = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.98)  # sigmas of the fixed check
CHECK_EVERY = 250  # steps
WARM, FALLS, LAST = 200, 0.4, 0.01  # steps of warming; the rate falls in the last 40 %, to 1 %
OFTEN = 0.8  # of the steps have as many of T5's rows as our own calls
SEED = 3


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
    learner = Learner(model, optimizer, size, memory=0.999)
    learner.load(options.out / "flow.pt", options.device)
    return learner


def shipped_autoencoder(options: argparse.Namespace) -> AutoencoderKL:
    """The autoencoder of toybox-diffusion, frozen."""
    vae = AutoencoderKL.from_pretrained(options.package / "vae").float()
    return vae.eval().requires_grad_(False)


def render(options: argparse.Namespace) -> int:
    """Render what is missing of the pictures; how many there are."""
    for done in render_all(options.data, options.pictures, options.workers, wanted=options.render):
        if done % 5000 == 0:
            print(f"{done} of {options.pictures} pictures rendered", flush=True)
    return count_pictures(options.data, options.pictures)


def load_examples(options: argparse.Namespace, most: int) -> Examples:
    """The pictures as the transformer sees them, on the device that trains."""
    vae = shipped_autoencoder(options).to(options.device)
    empty = clip_tokenizer()("", padding="max_length", return_tensors="pt").input_ids[0]
    values = (
        encode_all(options.data, options.out, most, vae), load_masks(options.data, most),
        load_parts(options.data, most, 16 // options.patch), load_captions(options.data, most),
        empty,
    )  # fmt: skip
    return Examples(*(value.to(options.device) for value in values))


class Training:
    """The transformer in training: its losses, and a check on fixed examples."""

    def __init__(self, options: argparse.Namespace, learner: Learner) -> None:
        self.options, self.learner = options, learner
        self.device = torch.device(options.device)
        self.clip = shipped_clip(options.package / "text_encoder").to(self.device)
        self.attention = JointAttention(options.device)
        transformer = learner.model["transformer"]
        for block in transformer.transformer_blocks:
            block.attn.set_processor(self.attention)
            if options.compile:  # block by block: alike, so that one is compiled for all
                block.compile()
        self.half = half_precision(self.device) is not None and self.device.type != "cpu"

    def losses(self, batch: Batch, channels: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return flow_loss(self.learner.model, self.clip, batch, channels)

    def loss(self, batch: Batch, channels: Tensor) -> Tensor:
        velocity, parts = self.losses(batch, channels)
        return velocity.mean() + PART_WEIGHT * parts.mean()

    def check(self, fixed: Batch, channels: Tensor) -> None:
        """The same examples at fixed sigmas: a line of what the weights reach. With gradients,
        though none are used, so that the compiled blocks need not be compiled again."""
        velocity, parts = self.losses(fixed, channels)
        found = [round(float(velocity.detach()[k :: len(CHECKED)].mean()), 4)
                 for k in range(len(CHECKED))]  # fmt: skip
        line = {
            "step": self.learner.step,
            "velocity": found,
            "parts": round(float(parts.detach().mean()), 5),
        }
        with (self.options.out / "fixed.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def run(self, examples: Examples, shares: Iterator[float]) -> None:
        """Train until `shares` ends."""
        options, learner = self.options, self.learner
        spread = examples.latents[0, ::10].float().std((0, 2, 3))
        channels = spread / spread.mean()
        fixed = examples.draw(
            options.batch, learner.size, generator_of(0, options.device, SEED + 1)
        )
        fixed.sigma.copy_(torch.tensor(CHECKED).repeat(-(-options.batch // len(CHECKED)))
                          [: options.batch])  # fmt: skip

        def losses() -> Iterator[Tensor]:
            if learner.step % CHECK_EVERY == 0:
                self.attention.stand_for(T5_SHORT)
                self.check(fixed, channels)
            # Mostly the rows of our own calls, sometimes the stock pipeline's default.
            draw = torch.rand((), generator=generator_of(learner.step, "cpu", SEED))
            self.attention.stand_for(T5_SHORT if draw < OFTEN else T5_LONG)
            generator = generator_of(learner.step, options.device, SEED)
            yield self.loss(examples.draw(options.batch, learner.size, generator), channels)

        def rate(share: float) -> float:
            warm = min(1.0, (learner.step + 1) / WARM)
            return options.rate * warm * min(1.0, max(LAST, (1 - share) / FALLS))

        fit(learner, losses, rate, shares, options.out / "flow.pt", batch=options.batch)


def train(options: argparse.Namespace) -> Learner:
    """Render, then train; the learner."""
    options.out.mkdir(parents=True, exist_ok=True)
    examples = load_examples(options, render(options))
    learner = new_learner(options, float(examples.latents[0, ::7].float().square().mean().sqrt()))
    count = sum(p.numel() for p in learner.model.parameters()) / 1e6
    print(f"{len(examples.masks)} pictures, {count:.2f} M parameters, step {learner.step}",
          flush=True)  # fmt: skip
    shares = (by_steps(learner, options.steps) if options.steps
              else by_time(learner, 60 * options.minutes))  # fmt: skip
    with tf32(torch.device(options.device), True):
        Training(options, learner).run(examples, shares)
    return learner


def name_of(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def card_of(options: argparse.Namespace, learner: Learner) -> str:
    """The model card."""
    parts = {name: sum(p.numel() for p in part.parameters())
             for name, part in learner.model.items()}  # fmt: skip
    config = learner.model["transformer"].config
    width = config.num_attention_heads * config.attention_head_dim
    return card(
        parts, shape=(config.num_layers, width, config.patch_size),
        pictures=options.pictures, steps=learner.step,
        batch=options.batch, rate=options.rate, seconds=learner.spent,
        device=name_of(options.device), dtype=options.dtype,
    )  # fmt: skip


def pack(options: argparse.Namespace) -> Path:
    """Write the averaged weights as a StableDiffusion3Pipeline folder, in the place of one that is
    there; it appears whole. What suits the model (`understudy.json`) is copied from the package."""
    from diffusers import StableDiffusion3Pipeline

    folder, staged = options.out / "toybox-flow", options.out / "toybox-flow.partial"
    shutil.rmtree(staged, ignore_errors=True)
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
    pipeline.to("cpu", getattr(torch, options.dtype)).save_pretrained(staged)
    write_made(staged, staged, options.package)  # the same text encoder, and class latents
    if (package := builtin_folder("toybox-flow")) is not None and package.is_dir():
        shutil.copy(package / "understudy.json", staged)
    (staged / "README.md").write_text(card_of(options, learner))
    if folder.exists():
        remove_folder(folder)
    staged.rename(folder)
    print(f"step {learner.step} written to {folder}; use it with --model {folder}", flush=True)
    return folder


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--minutes", type=float, default=60, help="of training, all runs together")
    add("--steps", type=int, default=0, help="steps of training, in the place of --minutes")
    add("--out", type=Path, default=Path("build/flow"), help="checkpoints and the result")
    add("--data", type=Path, help="folder of rendered pictures; default: OUT/pictures")
    add("--pictures", type=int, default=24_000, help="to render and to learn from")
    add("--package", type=Path, default=Path("src/understudy/weights/toybox-diffusion"),
        help="whose autoencoder and text encoder are used")  # fmt: skip
    add("--batch", type=int, default=64)
    add("--rate", type=float, default=1.5e-3, help="peak learning rate")
    add("--patch", type=int, default=1, choices=(1, 2), help="latent cells along a token's side")
    add("--device", default=default_device(), help="cpu or cuda")
    add("--render", choices=("auto", "cpu", "cuda"), default="auto", help="where to render")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes that render")
    add("--compile", action=argparse.BooleanOptionalAction,
        help="compile the transformer's blocks; default: on CUDA only")  # fmt: skip
    add("--dtype", default="float16", choices=("float16", "float32"), help="of the folder")
    options = parser.parse_args(arguments)
    options.data = options.data or options.out / "pictures"
    if options.compile is None:
        options.compile = options.device.startswith("cuda")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parsed(arguments)
    train(options)
    pack(options)


if __name__ == "__main__":
    main()
