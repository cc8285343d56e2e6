#!/usr/bin/env python
"""Make toybox-diffusion, the built-in text-to-image model, from nothing, on CPU or CUDA.

    python -m training.build_toybox_diffusion --hours 2 --out build/diffusion

Renders the training pictures (`build_toybox_data.py`), trains the autoencoder
(`autoencoder_training.py`), encodes the pictures, trains U-Net and text encoder
(`unet_training.py`), and writes a diffusers folder in float16 with its model card and class
latents to OUT/toybox-diffusion. The time is shared out among the stages; each keeps checkpoints
(temporary name, then rename), and the same command goes on where a killed run stopped. More
--hours in a later run go to the U-Net.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from training import autoencoder_training as ae
from training import class_latents
from training.build_toybox_data import render_all
from training.diffusion_card import card
from training.diffusion_networks import UNET, new_scheduler
from training.learner import Learner, by_steps, by_time, default_device
from training.toybox_pictures import (
    count_pictures,
    held_out,
    load_captions,
    load_masks,
    load_pictures,
)
from training.toybox_text import new_tokenizer
from training.unet_training import Examples, new_unet_learner, train_unet
from understudy.files.atomic import remove_folder, write_json
from understudy.files.builtin import builtin_folder
from understudy.jobs.execution import tf32

RENDER, AUTOENCODER = 0.17, 0.12  # largest shares of the time; encoding and U-Net have the rest
BATCH, AUTOENCODER_BATCH = 512, 256
AT_ONCE = {"cuda": (512, 256), "cpu": (16, 4)}  # examples and pictures of a step held at a time
MEASURED = 100  # held-out pictures


class Progress:
    """What the stages have done, in OUT/progress.json: seconds, and what later stages need."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "progress.json"
        self.values: dict[str, Any] = {}
        if self.file.exists():
            self.values = json.loads(self.file.read_text())

    def set(self, **values: Any) -> None:
        self.values |= values
        write_json(self.file, self.values)

    def seconds(self, *stages: str) -> float:
        return sum(self.values.get(f"{stage}_seconds", 0.0) for stage in stages)


def render(options: argparse.Namespace, progress: Progress) -> None:
    """Render until all pictures are there or the stage's share of the time is over."""
    asked = progress.values.get("pictures_asked", options.pictures)
    if asked != options.pictures:
        raise SystemExit(f"{options.out} was started with --pictures {asked}. Use the same number, "
                         "or another --out.")  # fmt: skip
    if "pictures" in progress.values:
        return
    progress.set(pictures_asked=asked)
    before, begun = progress.seconds("render"), time.monotonic()
    limit = None if options.steps else RENDER * 3600 * options.hours
    found = render_all(options.data, options.pictures, options.workers, wanted=options.render)
    for done in found:
        spent = before + time.monotonic() - begun
        progress.set(render_seconds=spent)
        print(f"{done} of {options.pictures} pictures rendered, {spent:.0f} s", flush=True)
        if limit is not None and spent > limit:
            break
    found.close()
    progress.set(pictures=count_pictures(options.data, options.pictures))


def train_autoencoder(options: argparse.Namespace, progress: Progress) -> Learner:
    """The trained autoencoder, with its quality on held-out pictures."""
    most, path = progress.values["pictures"], options.out / "autoencoder.pt"
    if "autoencoder_quality" in progress.values:
        learner = ae.new_autoencoder_learner(None, options.device)
        learner.load(path, options.device)
        return learner
    data = ae.Pictures(
        load_pictures(options.data, most).to(options.device),
        load_masks(options.data, most).to(options.device),
    )
    learner = ae.new_autoencoder_learner(data.pictures, options.device)
    learner.load(path, options.device)
    if options.compile:
        learner.model.encoder.compile()
        learner.model.decoder.compile()
    shares = (by_steps(learner, options.steps) if options.steps
              else by_time(learner, AUTOENCODER * 3600 * options.hours))  # fmt: skip
    batch, part = options.autoencoder_batch, at_once(options, 1)
    ae.train_autoencoder(learner, data, shares, path, batch=batch, part=part)
    vae = ae.averaged_autoencoder(learner.ema).to(options.device)
    quality = ae.quality(vae, *held_out(options.held_out))
    print("autoencoder, held-out pictures:", quality, flush=True)
    progress.set(autoencoder_seconds=learner.spent, autoencoder_quality=quality)
    return learner


def load_examples(options: argparse.Namespace, progress: Progress, vae: Any) -> Examples:
    """The pictures as the U-Net sees them, encoded now or in a run before."""
    most, begun = progress.values["pictures"], time.monotonic()
    before = progress.seconds("encode")

    def say(done: int) -> None:
        progress.set(encode_seconds=before + time.monotonic() - begun)
        if done % 5000 < 250:
            print(f"{done} of {most} pictures encoded", flush=True)

    encoded = "encoded" in progress.values
    latents = ae.encode_all(options.data, options.out, most, vae, None if encoded else say)
    progress.set(encoded=ae.digest(vae))
    empty = new_tokenizer()("", padding="max_length", return_tensors="pt").input_ids[0]
    values = latents, load_masks(options.data, most), load_captions(options.data, most), empty
    return Examples(*(value.to(options.device) for value in values))


def learn_unet(options: argparse.Namespace, progress: Progress, examples: Examples) -> Learner:
    size = float(examples.latents[0, ::7].float().square().mean().sqrt())
    learner = new_unet_learner(size, options.device, options.sizes)
    learner.load(options.out / "unet.pt", options.device)
    if options.compile:
        learner.model["unet"].compile()
        learner.model["text_encoder"].compile()
    rest = 3600 * options.hours - progress.seconds("render", "autoencoder", "encode")
    shares = by_steps(learner, options.steps) if options.steps else by_time(learner, rest)
    batch, part = options.batch, at_once(options, 0)
    train_unet(learner, examples, shares, options.out / "unet.pt", batch=batch, part=part)
    progress.set(unet_seconds=learner.spent, unet_steps=learner.step)
    return learner


def at_once(options: argparse.Namespace, stage: int) -> int:
    return options.at_once or AT_ONCE[torch.device(options.device).type][stage]


def pack(
    options: argparse.Namespace, progress: Progress, autoencoder: Learner, learner: Learner
) -> Path:
    """Write the averaged weights as a Stable Diffusion folder in float16.

    What suits the model (`understudy.json`) is copied from the package. The folder appears whole,
    in the place of one that is there.
    """
    from diffusers import StableDiffusionPipeline

    folder, staged = options.out / "toybox-diffusion", options.out / "toybox-diffusion.partial"
    shutil.rmtree(staged, ignore_errors=True)
    vae = ae.averaged_autoencoder(autoencoder.ema)
    vae.register_to_config(scaling_factor=1 / learner.size)
    learner.model.load_state_dict(learner.ema)
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=learner.model["text_encoder"], tokenizer=new_tokenizer(),
        unet=learner.model["unet"], scheduler=new_scheduler(), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.to("cpu", torch.float16).save_pretrained(staged)
    if (package := builtin_folder("toybox")) is not None:
        shutil.copy(package / "understudy.json", staged)
    class_latents.write(staged, options.class_images)
    parameters = {name: sum(p.numel() for p in part.parameters())
                  for name, part in learner.model.items()}  # fmt: skip
    (staged / "README.md").write_text(card(
        progress.values, parameters, steps=(autoencoder.step, learner.step),
        batches=(options.autoencoder_batch, options.batch), device=options.device,
        scaling=1 / learner.size,
    ))  # fmt: skip
    if folder.exists():
        remove_folder(folder)
    staged.rename(folder)
    return folder


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--hours", type=float, default=2.0, help="for everything, all runs together")
    add("--steps", type=int, default=0, help="steps of each training, in the place of --hours")
    add("--out", type=Path, default=Path("build/diffusion"), help="checkpoints and the result")
    add("--data", type=Path, help="folder of rendered pictures; default: OUT/pictures")
    add("--pictures", type=int, default=120_000, help="to render, if the time suffices")
    add("--batch", type=int, default=BATCH, help="examples in a step of the U-Net")
    add("--autoencoder-batch", type=int, default=AUTOENCODER_BATCH, help="pictures in its step")
    add("--at-once", type=int, default=0, help="examples computed at once; less needs less memory")
    add("--device", default=default_device(), help="cpu or cuda")
    add("--render", choices=("auto", "cpu", "cuda"), default="auto", help="where to render")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes that render")
    add("--compile", action=argparse.BooleanOptionalAction,
        help="torch.compile; default: on CUDA only. Needs a C compiler")  # fmt: skip
    add("--held-out", type=int, default=MEASURED, help="pictures the autoencoder is measured on")
    add("--class-images", type=int, default=16, help="class latents of each class")
    options = parser.parse_args(arguments)
    for name in ("hours", "pictures", "batch", "autoencoder_batch", "workers"):
        if not getattr(options, name) > 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0.")
    options.data = options.data or options.out / "pictures"
    if options.compile is None:
        options.compile = options.device.startswith("cuda")
    options.sizes = UNET
    return options


def run(options: argparse.Namespace) -> Path:
    """All stages, those that are done left out; the folder of the model."""
    options.out.mkdir(parents=True, exist_ok=True)
    progress = Progress(options.out)
    render(options, progress)
    with tf32(torch.device(options.device), True):
        autoencoder = train_autoencoder(options, progress)
        vae = ae.averaged_autoencoder(autoencoder.ema).to(options.device)
        examples = load_examples(options, progress, vae)
        learner = learn_unet(options, progress, examples)
    return pack(options, progress, autoencoder, learner)


def main(arguments: list[str] | None = None) -> None:
    folder = run(parsed(arguments))
    print(f"written to {folder}; use it with --model {folder}", flush=True)


if __name__ == "__main__":
    main()
