#!/usr/bin/env python
"""Train toybox-flow: a Stable Diffusion 3 folder for the toy world, from scratch, on CPU or CUDA.

    python -m training.build_toybox_data build/toybox --count 24000
    python -m training.build_toybox_flow train --minutes 60
    python -m training.build_toybox_flow pack --folder build/toybox-flow

The autoencoder is the one that the package ships, so latents are those of toybox-diffusion. `train`
keeps checkpoints (temporary name, then rename) and goes on where it stopped; the learning rate
follows the clock. `pack` writes the averaged weights as a genuine StableDiffusion3Pipeline folder.
--patch 2 makes a step about four times cheaper, for training on two cores.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from training.build_toybox_diffusion import (
    CHANNELS,
    PATCH,
    SPARE,
    TOKENS,
    WIDTH,
    Learner,
    encode_all,
    fit,
    load_masks,
    load_scenes,
    new_tokenizer,
    random_caption,
    trained_autoencoder,
    vocabulary,
)
from understudy import toybox
from understudy.models.precision import half_precision

T5_WIDTH, T5_SHORT, T5_LONG = 256, 24, 256  # the stock pipeline pads T5 to 256 places


def new_t5_tokenizer() -> T5TokenizerFast:
    """One piece for each word of the world, and one for each letter."""
    words = [*vocabulary(), *SPARE]
    letters = sorted({*"abcdefghijklmnopqrstuvwxyz,.'-{}", *"".join(words)})
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -4.0)]
    pieces += [(f"\u2581{word}", -2.0 - 0.001 * i) for i, word in enumerate(words)]
    pieces += [(letter, -8.0) for letter in letters]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=T5_LONG)


def new_networks(patch: int) -> torch.nn.ModuleDict:
    """The transformer, about 10.5 M parameters, and its three text encoders, about 3.5 M."""
    words = new_tokenizer()

    def clip() -> CLIPTextModelWithProjection:
        return CLIPTextModelWithProjection(CLIPTextConfig(
            vocab_size=len(words), hidden_size=WIDTH, intermediate_size=4 * WIDTH,
            num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=TOKENS,
            bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
            pad_token_id=words.eos_token_id, projection_dim=WIDTH,
        ))  # fmt: skip

    t5 = T5EncoderModel(T5Config(
        vocab_size=len(new_t5_tokenizer()), d_model=T5_WIDTH, d_kv=64, d_ff=512, num_layers=2,
        num_heads=4, feed_forward_proj="gated-gelu",
    ))  # fmt: skip
    transformer = SD3Transformer2DModel(
        sample_size=128 // PATCH, patch_size=patch, in_channels=CHANNELS, out_channels=CHANNELS,
        num_layers=8, attention_head_dim=64, num_attention_heads=3, caption_projection_dim=192,
        joint_attention_dim=T5_WIDTH, pooled_projection_dim=2 * WIDTH, pos_embed_max_size=32,
        qk_norm="rms_norm", dual_attention_layers=(0, 1),
    )  # fmt: skip
    torch.nn.init.zeros_(transformer.proj_out.weight)
    torch.nn.init.zeros_(transformer.proj_out.bias)
    for name, layer in transformer.named_modules():  # adaLN-zero: blocks begin as the identity
        if isinstance(layer, torch.nn.Linear) and "norm" in name:
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    return torch.nn.ModuleDict(
        {"transformer": transformer, "text_encoder": clip(), "text_encoder_2": clip(),
         "text_encoder_3": t5}
    )  # fmt: skip


@dataclass(frozen=True)
class Examples:
    """Latents of the pictures and of their mirror images, masks, and the scenes they show."""

    latents: torch.Tensor  # (2, n, c, 16, 16)
    masks: torch.Tensor  # (n, 1, 16, 16)
    scenes: list[toybox.Scene]

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Any, ...]:
        """Latents, subjects' masks and captions of `count` examples."""
        index, side = rng.integers(len(self.scenes), size=count), rng.integers(2, size=count)
        texts = [random_caption(self.scenes[i], rng) for i in index]
        picked, mirrored = torch.from_numpy(index), torch.from_numpy(side).bool()
        masks = self.masks[picked]
        masks = torch.where(mirrored[:, None, None, None], masks.flip(3), masks).float()
        return self.latents[torch.from_numpy(side), picked].float(), masks, texts


class Texts:
    """Captions as the network reads them; each encoder is left out now and then, as in SD3."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.clip, self.t5, self.rng = new_tokenizer(), new_t5_tokenizer(), rng

    def __call__(
        self, model: torch.nn.ModuleDict, texts: list[str], device: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (b, n, 256) and pooled vectors (b, 256)."""
        length = T5_SHORT if self.rng.random() < 0.85 else T5_LONG
        states, pooled = list[torch.Tensor](), list[torch.Tensor]()
        for part in ("text_encoder", "text_encoder_2"):
            answer = model[part](self._ids(self.clip, texts, TOKENS, device),
                                 output_hidden_states=True)  # fmt: skip
            states.append(answer.hidden_states[-2])
            pooled.append(answer.text_embeds)
        beside = torch.cat(states, dim=-1)  # 2 x 128 are T5's 256, so nothing is padded
        behind = model["text_encoder_3"](self._ids(self.t5, texts, length, device))[0]
        return torch.cat([beside, behind], dim=1), torch.cat(pooled, dim=-1)

    def _ids(self, tokenizer: Any, texts: list[str], length: int, device: str) -> torch.Tensor:
        kept = [text if self.rng.random() >= 0.25 else "" for text in texts]
        how = {"padding": "max_length", "max_length": length, "truncation": True}
        return tokenizer(kept, return_tensors="pt", **how).input_ids.to(device)


def flow_loss(
    model: torch.nn.ModuleDict,
    clean: torch.Tensor,
    masks: torch.Tensor,
    text: tuple[torch.Tensor, torch.Tensor],
    channels: torch.Tensor,
) -> torch.Tensor:
    """Squared error of the velocity noise - clean at random sigma (Esser et al. 2024, eq. 12).

    sigma: 80 % logit-normal around 0.6, 20 % uniform. Channels and subjects count as in
    `build_toybox_diffusion.velocity_loss`.
    """
    noise = torch.randn(clean.shape).to(clean.device)
    drawn = torch.sigmoid(torch.randn(len(clean)) + 0.4)
    sigma = torch.where(torch.rand(len(clean)) < 0.8, drawn, torch.rand(len(clean)))
    sigma = sigma.to(clean.device)
    share = sigma[:, None, None, None]
    half = half_precision(clean.device) is not None
    with torch.autocast(clean.device.type, torch.bfloat16, enabled=half):
        guess = model["transformer"](
            hidden_states=(1 - share) * clean + share * noise, timestep=sigma * 1000,
            encoder_hidden_states=text[0], pooled_projections=text[1], return_dict=False,
        )[0]  # fmt: skip
    where = 1 + 4 * masks
    error = (guess.float() - (noise - clean)).square() * (where / where.mean())
    return (error.mean((0, 2, 3)) * channels).mean()


def new_learner(options: argparse.Namespace, size: float) -> Learner:
    """From the last checkpoint, else from scratch."""
    torch.manual_seed(0)
    model = new_networks(options.patch).to(options.device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=options.rate, betas=(0.9, 0.99), weight_decay=0.01
    )
    learner = Learner(model, optimizer, {}, size, memory=0.9995)
    checkpoint = options.out / "flow.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=options.device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        learner.ema, learner.step, learner.size = state["ema"], state["step"], state["size"]
    learner.ema = learner.ema or {k: v.detach().clone() for k, v in model.state_dict().items()}
    return learner


def train(options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    vae = trained_autoencoder(options).to(options.device)
    most = (options.data, options.most)
    examples = Examples(encode_all(options, vae), load_masks(*most), load_scenes(*most))
    learner = new_learner(options, float(examples.latents[0].float().square().mean().sqrt()))
    spread = examples.latents[0, ::10].float().std((0, 2, 3)).to(options.device)
    count = sum(p.numel() for p in learner.model.parameters()) / 1e6
    print(f"{len(examples.scenes)} pictures, {count:.2f} M parameters, step {learner.step}",
          flush=True)  # fmt: skip
    rng = np.random.default_rng(learner.step)
    texts, model = Texts(rng), learner.model

    def loss() -> torch.Tensor:
        clean, masks, said = examples.draw(options.batch, rng)
        clean, masks = clean.to(options.device) / learner.size, masks.to(options.device)
        text = texts(model, said, options.device)
        return flow_loss(model, clean, masks, text, spread / spread.mean())

    def rate(share: float) -> float:
        warm = min(1.0, (learner.step + 1) / 1000)
        return options.rate * warm * 0.5 * (1 + math.cos(math.pi * share))

    fit(options, learner, "flow", loss, rate)


def pack(options: argparse.Namespace) -> None:
    """Write the averaged weights as a StableDiffusion3Pipeline folder in fp16."""
    from diffusers import StableDiffusion3Pipeline

    vae, learner = trained_autoencoder(options), new_learner(options, 1)
    vae.register_to_config(scaling_factor=1 / learner.size, shift_factor=0.0)
    learner.model.load_state_dict(learner.ema)
    words = new_tokenizer()
    pipeline = StableDiffusion3Pipeline(
        vae=vae, transformer=learner.model["transformer"],
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        text_encoder=learner.model["text_encoder"], tokenizer=words,
        text_encoder_2=learner.model["text_encoder_2"], tokenizer_2=words,
        text_encoder_3=learner.model["text_encoder_3"], tokenizer_3=new_t5_tokenizer(),
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
    parser.add_argument("--package", type=Path, default=package, help="whose autoencoder is used")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--most", type=int, default=24000, help="pictures to use at most")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=4e-4, help="peak learning rate")
    parser.add_argument("--patch", type=int, default=1, choices=(1, 2))
    parser.add_argument("--dtype", default="float16", choices=("float16", "float32"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    {"train": train, "pack": pack}[options.stage](options)


if __name__ == "__main__":
    main()
