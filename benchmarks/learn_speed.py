"""Our loop against a plain one that encodes photo and prompt at every step, as common scripts do.

    python -m benchmarks.learn_speed [--side 256] [--steps 3] [--width 1.0] [--device cuda]

Random weights in the shape of Stable Diffusion 1.5 (times --width), batch of one photo and one
class picture, U-Net trained in full or by LoRA, the same fused AdamW on both sides: what differs is
the work. Every measurement is a process of its own, so that peak memory is its own too. Kept in
results/learn_speed.json and .md.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.rows import RESULTS, page
from understudy.diffusion.ddpm import DDPMSchedule
from understudy.learn.batches import Batches, Prior
from understudy.learn.dreambooth import whole_model
from understudy.learn.latent_cache import LatentCache, encode_photos
from understudy.learn.lora import low_rank
from understudy.learn.optimiser import adamw
from understudy.learn.trainable import Trainable
from understudy.learn.training import Trainer, TrainOptions
from understudy.models.unet.stable_diffusion import StableDiffusion

PROMPTS = ("a photo of a sks cat", "a photo of a cat")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", type=int, default=256, help="pixels a side")
    parser.add_argument("--steps", type=int, default=3, help="timed, after one that is not")
    parser.add_argument("--width", type=float, default=1.0, help="of all channels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=("full", "lora"))
    parser.add_argument("--one", nargs=2, help="internal: kind and loop to measure here")
    wish = parser.parse_args()
    if wish.one:
        print(json.dumps(measured(wish, *wish.one)))
        return
    for kind in [wish.only] if wish.only else ["full", "lora"]:
        plain, ours = (alone(kind, loop) for loop in ("plain", "ours"))
        under = {name: getattr(wish, name) for name in ("side", "width", "device", "threads")}
        print(kept({"what": kind, **under, "steps": wish.steps}, plain, ours), flush=True)


def kept(conditions: dict[str, Any], plain: dict[str, float], ours: dict[str, float]) -> str:
    """Put a measurement in results/learn_speed.json, in the place of one under the same conditions;
    the Markdown of all of them, written beside it."""
    file = RESULTS / "learn_speed.json"
    known = json.loads(file.read_text()) if file.exists() else []
    row = {**conditions, "plain": plain, "ours": ours, "quicker": plain["step"] / ours["step"]}
    known = [one for one in known if any(one[k] != v for k, v in conditions.items())] + [row]
    intro = [
        "# A step of learning in the shape of Stable Diffusion 1.5, our loop and a plain one",
        "",
        "Random weights, one photo and one class picture a step, the same fused AdamW; the median",
        "of the steps, on a CPU in seconds of the processor; memory at its peak.",
    ]
    heads = ["what", "pixels", "width", "on", "steps", "plain, s", "ours, s", "quicker"]
    heads += ["plain, GiB", "ours, GiB", "encoded once, s"]
    cells = (
        [
            one["what"], one["side"], one["width"],
            f"{one['threads']} core" if one["device"] == "cpu" else one["device"], one["steps"],
            f"{one['plain']['step']:.2f}", f"{one['ours']['step']:.2f}", f"{one['quicker']:.2f}x",
            f"{one['plain']['memory']:.2f}", f"{one['ours']['memory']:.2f}",
            f"{one['ours']['prepare']:.1f}",
        ]
        for one in known
    )  # fmt: skip
    return page(file, known, intro, heads, cells)


def alone(kind: str, loop: str) -> dict[str, float]:
    """One measurement in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.learn_speed", *sys.argv[1:], "--one", kind, loop]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(wish: argparse.Namespace, kind: str, loop: str) -> dict[str, float]:
    """The median seconds of a step, the seconds before the first, the peak memory in GiB."""
    torch.set_num_threads(wish.threads)
    torch.manual_seed(0)
    model = random_model(wish.width, wish.device)
    photos = torch.rand(2, 3, wish.side, wish.side) * 2 - 1
    # On a CPU the processor's time, so that other work on the machine does not count.
    clock = time.process_time if wish.device == "cpu" else time.perf_counter
    how: dict[str, Any] = {"rank": 4, "alpha": 4.0, "train_text": False, "seed": 0}
    targets = ("to_q", "to_k", "to_v", "to_out.0")
    method = whole_model(model, train_text=False)
    with method if kind == "full" else low_rank(model, targets=targets, **how) as trainable:
        began = clock()
        step = (
            our_step(model, trainable, photos)
            if loop == "ours"
            else plain_step(model, trainable, photos)
        )
        prepared = clock() - began
        taken: list[float] = []
        for _ in range(wish.steps + 1):
            began = clock()
            step()
            if wish.device != "cpu":
                torch.cuda.synchronize()
            taken.append(clock() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if wish.device != "cpu":
        peak = torch.cuda.max_memory_allocated() / 2**30
    return {"step": sorted(taken[1:])[wish.steps // 2], "prepare": prepared, "memory": peak}


def our_step(
    model: StableDiffusion,
    trainable: Trainable,
    photos: Tensor,
    autocast: torch.dtype | None = None,
) -> Any:
    """The package's own loop, on latents that were encoded once."""
    latents, klass = encode_photos(model, photos[:1]), encode_photos(model, photos[1:])
    prior = Prior(PROMPTS[1:], LatentCache(klass.mean))
    batches = Batches(latents, (PROMPTS[:1],), prior, 1, model.schedule)
    options = TrainOptions(learning_rate=5e-6, autocast=autocast)
    return Trainer(model, trainable, batches, options, torch.Generator().manual_seed(0)).step


def plain_step(model: StableDiffusion, trainable: Trainable, photos: Tensor) -> Any:
    """DreamBooth as common scripts run it: pictures and prompts pass their encoders every time."""
    parameters = list(trainable.parameters.values())
    optimiser = adamw(trainable.parameters, learning_rate=5e-6, weight_decay=1e-2)

    def step() -> None:
        with torch.no_grad():
            mean, std = model.posterior(photos.to(model.device))
            clean = mean + std * torch.randn_like(mean)
            text = model.embed(PROMPTS)
        noise, times = torch.randn_like(clean), torch.randint(1000, (2,), device=clean.device)
        answer = model.predict(model.schedule.noised(clean, noise, times), times, text)
        ours, prior = (answer.float() - noise).chunk(2)
        (ours.square().mean() + prior.square().mean()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


class NoFiles:
    """The fingerprint of a model that came from no file."""

    folder = Path("random")

    def base(self) -> str:
        return "random"

    current = base


def random_model(width: float, device: str) -> StableDiffusion:
    """Stable Diffusion 1.5's networks with random weights, all channels times `width`."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from tests.tiny import _scheduler, _tokenizer

    def wide(*channels: int) -> tuple[int, ...]:
        return tuple(max(int(c * width) // 32 * 32, 32) for c in channels)

    tokens, (text,) = _tokenizer("sd15"), wide(768)
    with torch.device(device):
        unet = UNet2DConditionModel(
            sample_size=64, block_out_channels=wide(320, 640, 1280, 1280), cross_attention_dim=text,
            attention_head_dim=8, layers_per_block=2,
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=wide(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
            down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        )  # fmt: skip
        encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=49408, hidden_size=text, intermediate_size=4 * text,
                num_hidden_layers=12, num_attention_heads=8, max_position_embeddings=77,
                bos_token_id=tokens.bos_token_id, eos_token_id=tokens.eos_token_id,
            )
        )  # fmt: skip
    schedule = DDPMSchedule(_scheduler("sd15").alphas_cumprod, 1, False)
    parts: dict[str, Any] = {"unet": unet, "vae": vae, "text_encoder": encoder}
    for part in parts.values():
        part.eval().requires_grad_(False)
    return StableDiffusion(
        "random", {**parts, "tokenizer": tokens}, schedule=schedule,
        fingerprint=NoFiles(),  # type: ignore[arg-type]
    )  # fmt: skip


if __name__ == "__main__":
    main()
