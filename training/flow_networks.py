"""The networks of toybox-flow: an SD3 transformer, two CLIP text encoders and a T5.

Almost all of the text's meaning comes from the frozen text encoder of toybox-diffusion. The second
CLIP has one layer, so that the transformer reads its token embeddings as they are; it is trained.
The T5 is there because StableDiffusion3Pipeline wants one: its last norm has the weight 0, so it
answers zeros for every prompt. Rows that are equal stay equal in every block, so n of them act as
one row whose attention logit is log(n) higher; training computes that one row (`JointAttention`).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from training.diffusion_networks import CHANNELS, PATCH
from training.toybox_text import SPARE, TOKENS, new_tokenizer, vocabulary
from understudy.models.folder import read_json

WORDS = TOKENS  # places of a prompt, start and end included
CLIP_WIDTH, OWN_WIDTH = 192, 32
JOINT_WIDTH = CLIP_WIDTH + OWN_WIDTH  # of the text that the transformer reads
T5_SHORT, T5_LONG = 8, 256  # rows of zeros: ours, and the stock pipeline's default
LARGEST = 32  # image tokens along a side of the table of positions
TRANSFORMER = {"num_layers": 8, "num_attention_heads": 3, "attention_head_dim": 64}


def clip_tokenizer() -> CLIPTokenizer:
    """The tokenizer of toybox-diffusion, for shorter prompts."""
    found = new_tokenizer()
    found.model_max_length = WORDS
    return found


def t5_tokenizer() -> T5TokenizerFast:
    """One piece for each word of the world, and one for each letter."""
    words = [*vocabulary(), *SPARE]
    letters = sorted({*"abcdefghijklmnopqrstuvwxyz,.'-{}", *"".join(words)})
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -4.0)]
    pieces += [(f"\u2581{word}", -2.0 - 0.001 * i) for i, word in enumerate(words)]
    pieces += [(letter, -8.0) for letter in letters]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=T5_SHORT)


def shipped_clip(folder: Path) -> CLIPTextModelWithProjection:
    """The text encoder of toybox-diffusion with the identity as its projection, frozen."""
    config = read_json(folder / "config.json")
    config.pop("architectures")
    config.pop("dtype")  # float16 of the files: it would mix precisions
    model = CLIPTextModelWithProjection(CLIPTextConfig(**config))
    state = CLIPTextModel.from_pretrained(folder).float().state_dict()
    state = {f"text_model.{name.removeprefix('text_model.')}": v for name, v in state.items()}
    model.load_state_dict({**state, "text_projection.weight": torch.eye(CLIP_WIDTH)})
    return model.requires_grad_(False).eval()


def small_clip() -> CLIPTextModelWithProjection:
    words = clip_tokenizer()
    return CLIPTextModelWithProjection(CLIPTextConfig(
        vocab_size=len(words), hidden_size=OWN_WIDTH, intermediate_size=2 * OWN_WIDTH,
        num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=WORDS,
        bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
        pad_token_id=words.eos_token_id, projection_dim=OWN_WIDTH, initializer_factor=5.0,
    ))  # fmt: skip


def silent_t5() -> T5EncoderModel:
    """A T5 that answers zeros."""
    model = T5EncoderModel(T5Config(
        vocab_size=len(t5_tokenizer()), d_model=JOINT_WIDTH, d_kv=16, d_ff=32, num_layers=1,
        num_heads=2, feed_forward_proj="gated-gelu",
    ))  # fmt: skip
    torch.nn.init.zeros_(model.encoder.final_layer_norm.weight)
    return model.requires_grad_(False)


def new_transformer(patch: int) -> SD3Transformer2DModel:
    """The transformer; its blocks begin as the identity, its output as zero."""
    width = TRANSFORMER["num_attention_heads"] * TRANSFORMER["attention_head_dim"]
    transformer = SD3Transformer2DModel(
        sample_size=128 // PATCH, patch_size=patch, in_channels=CHANNELS, out_channels=CHANNELS,
        caption_projection_dim=width, joint_attention_dim=JOINT_WIDTH,
        pooled_projection_dim=JOINT_WIDTH, pos_embed_max_size=LARGEST, qk_norm="rms_norm",
        **TRANSFORMER,
    )  # fmt: skip
    # The class stretches its table over `sample_size`: neighbours would be half a step apart.
    table = get_2d_sincos_pos_embed(width, LARGEST, base_size=LARGEST, output_type="pt")
    transformer.pos_embed.pos_embed.copy_(table.float()[None])
    names = ("norm1.linear", "norm1_context.linear", "norm_out.linear", "proj_out")
    for name, layer in transformer.named_modules():
        if name.endswith(names):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    return transformer


def text_states(
    clip: CLIPTextModelWithProjection, own: CLIPTextModelWithProjection, ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the transformer reads: (b, WORDS + 1, JOINT_WIDTH) with one row of zeros for T5's, and
    the pooled vectors (b, JOINT_WIDTH)."""
    answers = [clip(ids, output_hidden_states=True), own(ids, output_hidden_states=True)]
    states = torch.cat([answer.hidden_states[-2] for answer in answers], dim=-1)
    pooled = torch.cat([answer.text_embeds for answer in answers], dim=-1)
    return torch.cat([states, torch.zeros_like(states[:, :1])], dim=1), pooled


def read_by_blocks(
    transformer: SD3Transformer2DModel,
    noisy: torch.Tensor,
    sigma: torch.Tensor,
    states: torch.Tensor,
    pooled: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The transformer's velocity (b, c, h, w), and the image tokens (b, n, width) after its middle
    block. As its `forward`, whose blocks hand out nothing; a hook would not survive compilation."""
    patch, channels = transformer.config.patch_size, transformer.out_channels
    image = transformer.pos_embed(noisy).contiguous()
    told = transformer.time_text_embed(sigma * 1000, pooled)
    text, middle = transformer.context_embedder(states), image
    for number, block in enumerate(transformer.transformer_blocks, 1):
        text, image = block(hidden_states=image, encoder_hidden_states=text, temb=told)
        if 2 * number == len(transformer.transformer_blocks):
            middle = image
    tokens = transformer.proj_out(transformer.norm_out(image, told))
    grid = (noisy.shape[2] // patch, noisy.shape[3] // patch)
    cells = tokens.unflatten(2, (patch, patch, channels)).unflatten(1, grid)
    return cells.permute(0, 5, 1, 3, 2, 4).reshape(len(noisy), channels, *noisy.shape[2:]), middle


class JointAttention:
    """Joint attention [image, text] of SD3 whose last key stands for several equal ones.

    weight: logarithm of their number, added to that key's logits; a tensor, so that another number
    needs no new compilation.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.weight = torch.tensor(math.log(T5_SHORT), device=device)
        self.fused = device != "cpu"  # on a CPU, maps of a few hundred tokens are quicker

    def stand_for(self, copies: int) -> None:
        """The last key stands for so many equal ones from now on."""
        self.weight.fill_(math.log(copies))

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        **unused: Any,
    ) -> Any:
        """The image's tokens (b, n, c) and the text's (b, m, c) after attention."""
        image, text, heads = hidden_states, encoder_hidden_states, attn.heads

        def split(found: torch.Tensor) -> torch.Tensor:
            return found.unflatten(-1, (heads, -1)).transpose(1, 2)

        q = torch.cat([attn.norm_q(split(attn.to_q(image))),
                       attn.norm_added_q(split(attn.add_q_proj(text)))], dim=2)  # fmt: skip
        k = torch.cat([attn.norm_k(split(attn.to_k(image))),
                       attn.norm_added_k(split(attn.add_k_proj(text)))], dim=2)  # fmt: skip
        v = torch.cat([split(attn.to_v(image)), split(attn.add_v_proj(text))], dim=2)
        q, k = q.to(v.dtype), k.to(v.dtype)
        bias = torch.cat([self.weight.new_zeros(k.shape[2] - 1), self.weight[None]]).to(v.dtype)
        if self.fused:
            mask = bias.expand(q.shape[2], -1)
            found = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)
        else:
            logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + bias
            found = logits.softmax(dim=-1) @ v
        found = found.transpose(1, 2).flatten(2)
        seen, read = found.split([image.shape[1], text.shape[1]], dim=1)
        seen = attn.to_out[1](attn.to_out[0](seen))
        return seen, (read if attn.context_pre_only else attn.to_add_out(read))
