#!/usr/bin/env python
"""Train the built-in text-to-image model on the toy world, from scratch, on CPU or CUDA.

    python -m training.build_toybox_data build/toybox --count 24000
    python -m training.build_toybox_diffusion autoencoder --minutes 15
    python -m training.build_toybox_diffusion unet --minutes 90
    python -m training.build_toybox_diffusion pack

Each stage checkpoints (temporary name, then rename) and goes on where it stopped; `pack` writes a
diffusers folder with fp16 weights into the package. The encoder is the principal components of 8x8
patches in closed form (`linear_start.py`) and only the decoder is trained: the latents are known
from the first minute, so the U-Net can train beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.linear_start import linear_start
from training.widen_unet import widened
from understudy import toybox
from understudy.files.atomic import replacing
from understudy.models.precision import half_precision
from understudy.toybox.sample import RESERVED_PAIRS

CHANNELS, PATCH, TOKENS, WIDTH = 24, 8, 40, 128
POSTERIOR_STD = 0.05
SPARE = ("sks", "zwx", "ohwx", "qzv", "vkq", "xjy", "bnha", "krr", "wuk", "phlo", "ydu", "grol")
"""Rare tokens: each is one token; in training they stand before nouns now and then and mean
nothing, so that a subject learnt later can take any of them."""


# --- data ---------------------------------------------------------------------------------------


def chunks(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.npz"))
    if not found:
        raise SystemExit(f"{folder} holds no rendered pictures: run build_toybox_data.py first.")
    return found


def load_pictures(folder: Path, most: int) -> torch.Tensor:
    """(n, 3, 128, 128) uint8."""
    parts = [np.load(path)["pictures"] for path in chunks(folder)[: math.ceil(most / 250)]]
    return torch.from_numpy(np.concatenate(parts)).permute(0, 3, 1, 2)


def load_masks(folder: Path, most: int) -> torch.Tensor:
    """Share of each latent cell that shows the first subject, (n, 1, 16, 16)."""
    parts = [np.load(path)["masks"] for path in chunks(folder)[: math.ceil(most / 250)]]
    masks = torch.from_numpy(np.concatenate(parts))[:, None]
    return torch.cat([F.avg_pool2d(part.float() / 255, PATCH).half() for part in masks.split(250)])


def load_scenes(folder: Path, most: int) -> list[toybox.Scene]:
    lines = [line for path in chunks(folder)[: math.ceil(most / 250)]
             for line in np.load(path)["scenes"]]  # fmt: skip
    return [toybox.Scene.from_json(json.dumps(json.loads(line)["scene"])) for line in lines]


def save(state: dict[str, Any], path: Path) -> None:
    with replacing(path) as staged:
        torch.save(state, staged)


def ticks(minutes: float) -> Iterator[float]:
    """Share of the time that has passed, until it has."""
    start = time.monotonic()
    while (share := (time.monotonic() - start) / (60 * minutes)) < 1:
        yield share


# --- autoencoder --------------------------------------------------------------------------------


def new_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=CHANNELS, sample_size=128,
        block_out_channels=(16, 32, 64, 128), layers_per_block=1, norm_num_groups=2,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        mid_block_add_attention=False, scaling_factor=1.0,
    )  # fmt: skip


def random_crops(pictures: torch.Tensor, count: int, side: int) -> torch.Tensor:
    """(count, 3, side, side) in [-1, 1], flipped half of the time, on the 8-pixel grid."""
    index = torch.randint(len(pictures), (count,))
    places = torch.randint((128 - side) // PATCH + 1, (count, 2)) * PATCH
    parts = [pictures[i, :, y : y + side, x : x + side]
             for i, (y, x) in zip(index, places.tolist(), strict=True)]  # fmt: skip
    batch = torch.stack(parts).float() / 127.5 - 1
    flip = torch.rand(count) < 0.5
    return torch.where(flip[:, None, None, None], batch.flip(3), batch)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((10 * torch.log10(4 / (a - b).square().flatten(1).mean(1))).mean())


def held_out_pictures(count: int) -> torch.Tensor:
    """Renders of reserved toys, which no training picture shows; (count, 3, 128, 128)."""
    scenes = [toybox.sample_scene(10_000_000 + n, held_out=True) for n in range(count)]
    drawn = np.stack([toybox.render(scene).picture for scene in scenes])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pictures: torch.Tensor, extra: float = 0) -> torch.Tensor:
    """Encoded and decoded, with `extra` noise in the latents, as a share of their size."""
    latents = torch.cat([vae.encode(part).latent_dist.mean for part in pictures.split(32)])
    noisy = latents + extra * latents.std() * torch.randn_like(latents)
    return torch.cat([vae.decode(part).sample for part in noisy.split(32)]).clamp(-1, 1)


def trained_autoencoder(options: argparse.Namespace) -> AutoencoderKL:
    """The averaged weights of the last checkpoint, or those that the package ships."""
    if (checkpoint := options.out / "autoencoder.pt").exists():
        vae = new_autoencoder()
        vae.load_state_dict(torch.load(checkpoint)["ema"])
        return vae
    return AutoencoderKL.from_pretrained(options.package / "vae").float()


def train_autoencoder(options: argparse.Namespace) -> None:
    """Linear start, then the decoder alone: the encoder stays linear, so latents never change.

    Half of the latents it learns from carry noise, up to a third of their own size: a decoder that
    has seen only perfect latents draws each small mistake of the U-Net as a block.
    """
    path = options.out / "autoencoder.pt"
    vae = new_autoencoder()
    pictures = load_pictures(options.data, options.most)
    state: dict[str, Any] = torch.load(path) if path.exists() else {"step": 0}
    if "model" in state:
        vae.load_state_dict(state["model"])
    elif (options.package / "vae").exists():
        vae.load_state_dict(trained_autoencoder(options).state_dict())
    else:
        linear_start(vae, pictures[:: len(pictures) // 128][:128].float() / 127.5 - 1, CHANNELS)
        with torch.no_grad():  # the posterior's deviation is a constant
            vae.quant_conv.weight[CHANNELS:] = 0
            vae.quant_conv.bias[CHANNELS:] = 2 * math.log(POSTERIOR_STD)
        save({"model": vae.state_dict(), "ema": vae.state_dict(), "step": 0}, path)
    vae.to(options.device, memory_format=torch.channels_last)
    vae.decoder.compile()
    learning = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    optimizer = torch.optim.AdamW(learning, lr=1e-3, betas=(0.9, 0.98), weight_decay=0)
    if "optimizer" in state:
        optimizer.load_state_dict(state["optimizer"])
    average = torch.optim.swa_utils.AveragedModel(
        vae, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)
    )
    if "ema" in state:
        average.module.load_state_dict(state["ema"])
    test = held_out_pictures(48).to(options.device)
    step, errors = state["step"], 0.0
    torch.manual_seed(step)

    def show(network: AutoencoderKL) -> None:
        clear, noisy = (psnr(reconstruct(network, test, extra), test) for extra in (0, 0.2))
        print(f"  held out {clear:.2f} dB, from noisy latents {noisy:.2f} dB", flush=True)

    def keep() -> None:
        show(average.module)
        states = {"model": vae.state_dict(), "ema": average.module.state_dict()}
        save({**states, "optimizer": optimizer.state_dict(), "step": step}, path)

    show(average.module)
    for share in ticks(options.minutes):
        full = share > 0.8
        batch = random_crops(pictures, 3 if full else 8, 128 if full else 64).to(options.device)
        warm, cool = min(1, step / 100 + 0.01), 0.5 * (1 + math.cos(math.pi * share))
        optimizer.param_groups[0]["lr"] = options.rate * warm * max(cool, 0.02)
        with torch.no_grad():
            latents = vae.encode(batch).latent_dist.sample()
            strength = (torch.rand(len(batch), 1, 1, 1) - 0.5).clamp(min=0).to(latents) * 0.7
            latents = latents + strength * latents.std() * torch.randn_like(latents)
        device = torch.device(options.device)
        with torch.autocast(
            device.type, torch.bfloat16, enabled=half_precision(device) is not None
        ):
            drawn = vae.decode(latents.contiguous(memory_format=torch.channels_last)).sample
        error = (drawn.float() - batch).square().mean()
        optimizer.zero_grad()
        error.backward()
        torch.nn.utils.clip_grad_norm_(learning, 0.5)
        optimizer.step()
        average.update_parameters(vae)
        step, errors = step + 1, errors + error.item() / 100
        if step % 100 == 0:
            print(f"step {step} {10 * math.log10(4 / errors):.2f} dB {share:.0%}", flush=True)
            errors = 0.0
        if step % 500 == 0:
            keep()
    keep()


# --- text ---------------------------------------------------------------------------------------


def vocabulary() -> list[str]:
    """Every word that a caption of the world can hold."""
    from understudy.toybox import vocabulary as words

    phrases = [*words.CLASSES, *words.COLOURS, *words.PATTERNS, *words.ACCESSORIES, *words.LIGHTS,
               *words.ALL_STANCES, *words.BACKGROUNDS.values(), *words.PROPS, "a an photo of and",
               "with next to light sunlight in toy the its picture small big"]  # fmt: skip
    return sorted({word for phrase in phrases for word in phrase.split()})


def new_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-level BPE with a small vocabulary: any text, one token for each known word."""
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    vocab = {c: i for i, c in enumerate([*alphabet, *(c + "</w>" for c in alphabet)])}
    merges: list[tuple[str, str]] = []
    for word in (*vocabulary(), *SPARE):
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:  # join from the right: endings are shared least
            pair = (pieces[-2], pieces[-1])
            pieces[-2:] = ["".join(pair)]
            if pair not in merges:
                merges.append(pair)
            vocab.setdefault("".join(pair), len(vocab))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TOKENS)


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=4 * WIDTH,
        num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id, projection_dim=WIDTH,
    ))  # fmt: skip


def random_caption(scene: toybox.Scene, rng: np.random.Generator) -> str:
    """A caption; sometimes none, sometimes with a meaningless rare token before a noun."""
    if rng.random() < 0.1:
        return ""
    text = toybox.caption(scene, int(rng.integers(2**31)))
    if rng.random() < 0.1:
        nouns = [w for w in text.split() if w in toybox.CLASSES]
        text = text.replace(nouns[0], f"{rng.choice(SPARE)} {nouns[0]}", 1)
    return text


# --- U-Net --------------------------------------------------------------------------------------


def new_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=128 // PATCH, in_channels=CHANNELS, out_channels=CHANNELS, layers_per_block=1,
        block_out_channels=(128, 128, 256), attention_head_dim=(4, 4, 8), norm_num_groups=16,
        time_embedding_dim=256,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
    )  # fmt: skip


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise, but with a last fifth that ends where nothing can be seen.

    Stable Diffusion's own end leaves 7 % of the picture in the noisiest latent: a model learns to
    read outlines there, and reads them into pure noise when it draws (Lin et al. 2024,
    arXiv:2305.08891). These latents, large where a picture is smooth, would suffer more than most.
    """
    usual = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    ).alphas_cumprod.double()
    knots, levels = [800, 950, 999], [math.log(float(usual[800])), math.log(5e-4), math.log(2e-4)]
    ending = torch.from_numpy(np.interp(np.arange(801, 1000), knots, levels)).exp()
    alphas = torch.cat([torch.ones(1, dtype=torch.float64), usual[:801], ending])
    return DDIMScheduler(
        trained_betas=(1 - alphas[1:] / alphas[:-1]).tolist(), clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction",
    )  # fmt: skip


@torch.no_grad()
def encode_all(options: argparse.Namespace, vae: AutoencoderKL) -> torch.Tensor:
    """Latents of all pictures and of their mirror images, (2, n, 16, 16, 16); cached by chunk."""
    parts: list[torch.Tensor] = []
    folder = options.out / "latents"
    folder.mkdir(parents=True, exist_ok=True)
    for path in chunks(options.data)[: math.ceil(options.most / 250)]:
        cached = folder / f"{path.stem}.pt"
        if not cached.exists():
            pictures = torch.from_numpy(np.load(path)["pictures"]).permute(0, 3, 1, 2)
            batch = (pictures.float() / 127.5 - 1).to(options.device)
            both = [
                torch.cat([vae.encode(p).latent_dist.mean for p in side.split(8)])
                for side in (batch, batch.flip(3))
            ]
            with replacing(cached) as staged:
                torch.save(torch.stack(both).half().cpu(), staged)
        parts.append(torch.load(cached))
    return torch.cat(parts, dim=1)


@dataclass
class Learner:
    """Networks in training, with their running average of decay `memory`."""

    model: torch.nn.ModuleDict
    optimizer: torch.optim.AdamW
    ema: dict[str, torch.Tensor]
    size: float  # of the latents; they are divided by it
    step: int = 0
    memory: float = 0.999

    def save(self, path: Path) -> None:
        save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
              "ema": self.ema, "step": self.step, "size": self.size}, path)  # fmt: skip

    @torch.no_grad()
    def follow(self) -> None:
        """Move the average a little towards the weights."""
        keep = min(self.memory, (1 + self.step) / (10 + self.step))
        live = {k: v for k, v in self.model.state_dict().items() if v.is_floating_point()}
        torch._foreach_lerp_([self.ema[k] for k in live], list(live.values()), 1 - keep)


def new_learner(options: argparse.Namespace, size: float) -> Learner:
    """From the last checkpoint; else from the weights that the package ships; else from scratch."""
    text_encoder, unet = new_text_encoder(new_tokenizer()), new_unet()
    torch.nn.init.zeros_(unet.conv_out.weight)
    model = torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}).to(options.device)
    unet.to(memory_format=torch.channels_last)
    if options.device == "cpu":  # materialised maps of 256 tokens are a third quicker than fused
        unet.set_attn_processor(AttnProcessor())
        text_encoder.set_attn_implementation("eager")
    unet.compile()
    text_encoder.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01)
    checkpoint, step, ema = options.out / "unet.pt", 0, None
    if checkpoint.exists():
        state = torch.load(checkpoint)
        ema, step, size = state["ema"], state["step"], state["size"]
        shapes = [value.shape for value in model.state_dict().values()]
        if [value.shape for value in state["model"].values()] == shapes:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
        else:  # of a narrower U-Net
            model.load_state_dict(ema := widened(ema, model.state_dict()))
    elif (options.package / "unet").exists():
        shipped = UNet2DConditionModel.from_pretrained(options.package / "unet")
        unet.load_state_dict(widened(shipped.float().state_dict(), unet.state_dict()))
        spoken = CLIPTextModel.from_pretrained(options.package / "text_encoder")
        text_encoder.load_state_dict(spoken.float().state_dict())
        size = 1 / AutoencoderKL.load_config(options.package / "vae")["scaling_factor"]
        step = 1000  # as after warming up
    optimizer.param_groups[0]["fused"] = True
    ema = ema or {k: v.detach().clone() for k, v in model.state_dict().items()}
    return Learner(model, optimizer, ema, size, step)


@dataclass(frozen=True)
class Examples:
    """Latents of the pictures and of their mirror images, and the scenes they show."""

    latents: torch.Tensor  # (2, n, c, 16, 16)
    masks: torch.Tensor  # (n, 1, 16, 16)
    scenes: list[toybox.Scene]
    tokenizer: CLIPTokenizer

    def draw(self, count: int, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """Latents, subjects' masks and token ids of `count` examples."""
        index, side = rng.integers(len(self.scenes), size=count), rng.integers(2, size=count)
        texts = [random_caption(self.scenes[i], rng) for i in index]
        ids = self.tokenizer(
            texts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
        ).input_ids
        picked = torch.from_numpy(index)
        mirrored = torch.from_numpy(side).bool()[:, None, None, None]
        masks = torch.where(mirrored, self.masks[picked].flip(3), self.masks[picked]).float()
        return self.latents[torch.from_numpy(side), picked].float(), masks, ids


def velocity_loss(
    model: torch.nn.ModuleDict,
    clean: torch.Tensor,
    masks: torch.Tensor,
    ids: torch.Tensor,
    alphas: torch.Tensor,
    channels: torch.Tensor,
) -> torch.Tensor:
    """Mean squared error of the predicted velocity at random times (Salimans and Ho, 2022).

    A short training must look where learning is left to do. A channel counts by how much of the
    picture it carries (`channels` (c,), mean 1), so that the many faint ones, which noise hides at
    most times, do not drown the few that give colour; a subject counts five times its background,
    which is soon learnt; and the noisiest times, where outlines are decided, come up more often
    than the clean ones, where only grain is left to remove.
    """
    noise = torch.randn(clean.shape).to(clean.device)
    edges = torch.tensor([0.0, 0.25, 0.8, 1.0]) * len(alphas)
    part = torch.multinomial(torch.tensor([0.15, 0.55, 0.30]), len(clean), replacement=True)
    t = (edges[part] + torch.rand(len(clean)) * (edges[part + 1] - edges[part])).long()
    t = t.to(clean.device)
    a, s = (x[t].sqrt()[:, None, None, None] for x in (alphas, 1 - alphas))
    noisy = (a * clean + s * noise).contiguous(memory_format=torch.channels_last)
    half = half_precision(clean.device) is not None
    with torch.autocast(clean.device.type, torch.bfloat16, enabled=half):
        states = model["text_encoder"](ids).last_hidden_state
        guess = model["unet"](noisy, t, states).sample
    where = 1 + 4 * masks
    error = (guess.float() - (a * noise - s * clean)).square() * (where / where.mean())
    return (error.mean((0, 2, 3)) * channels).mean()


def train_unet(options: argparse.Namespace) -> None:
    vae = trained_autoencoder(options).to(options.device)
    most = (options.data, options.most)
    examples = Examples(
        encode_all(options, vae), load_masks(*most), load_scenes(*most), new_tokenizer()
    )
    learner = new_learner(options, float(examples.latents[0].float().square().mean().sqrt()))
    model, alphas = learner.model, new_scheduler().alphas_cumprod.to(options.device)
    spread = examples.latents[0, ::10].float().std((0, 2, 3)).to(options.device)
    channels = spread / spread.mean()
    count = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{len(examples.scenes)} pictures, latents of size {learner.size:.3f}, {count:.2f} M "
          f"parameters, step {learner.step}", flush=True)  # fmt: skip
    rng = np.random.default_rng(learner.step)

    def loss() -> torch.Tensor:
        latents, masks, ids = (x.to(options.device) for x in examples.draw(options.batch, rng))
        return velocity_loss(model, latents / learner.size, masks, ids, alphas, channels)

    def rate(share: float) -> float:
        warm = min(1.0, learner.step / 300 + 0.01)
        cool = options.floor + (1 - options.floor) * 0.5 * (1 + math.cos(math.pi * share))
        return options.rate * warm * cool

    fit(options, learner, "unet", loss, rate)


def fit(
    options: argparse.Namespace,
    learner: Learner,
    name: str,
    loss_of: Callable[[], torch.Tensor],
    rate_at: Callable[[float], float],
    every: int = 250,
) -> None:
    """Train for `options.minutes`: a loss a step, the rate by the share of the time that is gone.

    A line every 100 steps goes to NAME.jsonl in `options.out`, and a checkpoint every `every` steps
    to NAME.pt.
    """
    losses, begun = list[float](), time.monotonic()
    torch.manual_seed(learner.step)
    for share in ticks(options.minutes):
        for group in learner.optimizer.param_groups:
            group["lr"] = rate_at(share)
        loss = loss_of()
        learner.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.model.parameters(), 1.0)
        learner.optimizer.step()
        learner.step += 1
        learner.follow()
        losses.append(loss.item())
        if learner.step % 100 == 0:
            rate = len(losses) * options.batch / (time.monotonic() - begun)
            line = {"step": learner.step, "loss": round(float(np.mean(losses[-200:])), 5),
                    "share": round(share, 3), "samples_per_second": round(rate, 1)}  # fmt: skip
            with (options.out / f"{name}.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(line, flush=True)
        if learner.step % every == 0:
            learner.save(options.out / f"{name}.pt")
    learner.save(options.out / f"{name}.pt")


# --- pack ---------------------------------------------------------------------------------------


CARD = """# toybox-diffusion

A small text-to-image model of the toy world, in the layout of Stable Diffusion (AutoencoderKL,
CLIPTextModel, UNet2DConditionModel, DDIM scheduler, v-prediction), trained from scratch by
`training/build_toybox_diffusion.py` on {pictures} renders and their mirror images; no photo and
no other model had a part in it. Apache-2.0.

* Pictures of 128x128 pixels, latents of 16x16x{channels}; prompts of up to {tokens} tokens in a
  small vocabulary (any text can be written; the words of the toy world are one token each).
  {spare} and their like are rare tokens that mean nothing: identifiers for subjects learnt later.
* U-Net and text encoder: {parameters:.1f} M parameters, {steps} steps of {batch} samples. The
  encoder is linear (principal components of 8x8 patches), the decoder is not.
* Reserved toys (about one in eight looks) and five pairs of class and background never occurred in
  training: {pairs}.
* It knows twelve kinds of toys on twelve backgrounds and nothing else. It is for trying methods out
  and for tests, where the right answer is known; it says nothing about photographs.

Measured on held-out scenes by `scripts/bench`, guidance and steps as said there:

{figures}
"""


def figures() -> str:
    """The tables that scripts/bench wrote, if it has been run."""
    found = [Path("benchmarks/results") / f"{name}.md" for name in ("autoencoder", "text_to_image")]
    texts = [path.read_text().replace("# ", "## ", 1) for path in found if path.exists()]
    return "\n".join(texts) or "Not measured yet.\n"


def pack(options: argparse.Namespace) -> None:
    """Write the averaged weights as a diffusers folder in fp16, with its model card."""
    from diffusers import StableDiffusionPipeline

    vae, tokenizer, learner = trained_autoencoder(options), new_tokenizer(), new_learner(options, 1)
    vae.register_to_config(scaling_factor=1 / learner.size)
    learner.model.load_state_dict(learner.ema)
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=learner.model["text_encoder"], tokenizer=tokenizer,
        unet=learner.model["unet"], scheduler=new_scheduler(), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.to(dtype=torch.float16).save_pretrained(options.package)
    card = CARD.format(
        pictures=min(options.most, 250 * len(list(options.data.glob("*.npz")))), channels=CHANNELS,
        tokens=TOKENS, spare=", ".join(SPARE[:3]), steps=learner.step, batch=options.batch,
        parameters=sum(p.numel() for p in learner.model.parameters()) / 1e6,
        pairs=", ".join(f"{noun} and {place}" for noun, place in sorted(RESERVED_PAIRS)),
        figures=figures(),
    )  # fmt: skip
    (options.package / "README.md").write_text(card)
    print(f"step {learner.step} packed into {options.package}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=("autoencoder", "unet", "pack"))
    parser.add_argument("--data", type=Path, default=Path("build/toybox"))
    parser.add_argument("--out", type=Path, default=Path("build/diffusion"))
    package = Path("src/understudy/weights/toybox-diffusion")
    parser.add_argument("--package", type=Path, default=package)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--most", type=int, default=24000, help="pictures to use at most")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--floor", type=float, default=0.05, help="final share of the rate")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    {"autoencoder": train_autoencoder, "unet": train_unet, "pack": pack}[options.stage](options)


if __name__ == "__main__":
    main()
