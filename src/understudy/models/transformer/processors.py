"""Attention processors of flow transformers: projections of each class, attention by a plan.

Without a control they compute what diffusers' own processors compute, operation by operation, so
outputs are bit-equal. With one, queries, keys and values after QK-norm and rotary positions go to
`attend_joint`. Features are "r n c"; heads are split off as "r n heads d" and put first for
attention.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.attention.joint import Projected, attend_joint
from understudy.attention.projections import join_heads
from understudy.attention.site import AttentionSite
from understudy.models.transformer.calls import Calls


class Processor:
    """What the processors of all classes share: their layer's site and the call in progress."""

    def __init__(self, site: AttentionSite, calls: Calls) -> None:
        self.site, self.calls = site, calls

    def mixed(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Attention's result "r n c" for "r n heads d".

        mask: keys that may be read, "r n", or queries and keys, "r 1 n n".
        """
        q, k, v = (part.transpose(1, 2) for part in (query, key, value))
        call, site, plan = self.calls.current, self.site, None
        if call is not None:
            site = call.placed(site, q.shape[2])
            plan = call.plan(site)
        if plan is None:
            seen = mask[:, None, None, :] if mask is not None and mask.ndim == 2 else mask
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        else:
            # Chroma masks queries as well; padding of the text is what no query may read.
            keys = mask[:, 0].any(dim=1) if mask is not None and mask.ndim == 4 else mask
            out = attend_joint(Projected(q, k, v, q.shape[-1] ** -0.5, keys), site, plan)
        return join_heads(out).to(query.dtype)


class SD3Processor(Processor):
    """SD3: image tokens first; without text it is the second attention, of the image alone."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Called by diffusers; hidden_states of the image, encoder_hidden_states of the text."""
        image = _projected(attn, hidden_states)
        if encoder_hidden_states is None:
            return _out(attn, self.mixed(*image))
        text = _projected(attn, encoder_hidden_states, text=True)
        both = (torch.cat(pair, dim=1) for pair in zip(image, text, strict=True))
        mixed = self.mixed(*both)
        cells = hidden_states.shape[1]
        words = mixed[:, cells:]
        if not attn.context_pre_only:
            words = attn.to_add_out(words)
        return _out(attn, mixed[:, :cells]), words


class FluxProcessor(Processor):
    """FLUX.1, Chroma and FLUX.2: text first, rotary positions on both; single blocks get one
    sequence and project the result themselves."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Called by diffusers; attention_mask "r 1 n n" (Chroma)."""
        query, key, value = _projected(attn, hidden_states)
        if encoder_hidden_states is not None:
            text = _projected(attn, encoder_hidden_states, text=True)
            pairs = zip(text, (query, key, value), strict=True)
            query, key, value = (torch.cat(pair, dim=1) for pair in pairs)
        query, key = (turned(part, image_rotary_emb) for part in (query, key))
        mixed = self.mixed(query, key, value, attention_mask)
        if encoder_hidden_states is None:
            return mixed
        words = encoder_hidden_states.shape[1]
        image = _out(attn, mixed[:, words:].contiguous())
        return image, attn.to_add_out(mixed[:, :words].contiguous())


class Flux2SingleProcessor(Processor):
    """FLUX.2's single blocks: one projection gives queries, keys, values and the hidden units of
    the MLP; one projection takes the results of both."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Called by diffusers; hidden_states of text and image."""
        width = 3 * attn.inner_dim
        both = attn.to_qkv_mlp_proj(hidden_states)
        parts = both[..., :width].chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (-1, attn.head_dim)) for part in parts)
        query = turned(attn.norm_q(query), image_rotary_emb)
        key = turned(attn.norm_k(key), image_rotary_emb)
        mixed = self.mixed(query, key, value, attention_mask)
        units = attn.mlp_act_fn(both[..., width:])
        return attn.to_out(torch.cat([mixed, units], dim=-1))


class QwenProcessor(Processor):
    """Qwen-Image: text first, complex rotary positions, a mask over the words."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        encoder_hidden_states_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Called by diffusers; encoder_hidden_states_mask "r words"."""
        image = _projected(attn, hidden_states)
        text = _projected(attn, encoder_hidden_states, text=True)
        if image_rotary_emb is not None:
            of_image, of_text = (freqs.unsqueeze(1) for freqs in image_rotary_emb)
            image = (spun(image[0], of_image), spun(image[1], of_image), image[2])
            text = (spun(text[0], of_text), spun(text[1], of_text), text[2])
        both = (torch.cat(pair, dim=1) for pair in zip(text, image, strict=True))
        mask = encoder_hidden_states_mask
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(hidden_states.shape[:2])], dim=1)
        mixed = self.mixed(*both, mask=mask)
        words = encoder_hidden_states.shape[1]
        return (
            _out(attn, mixed[:, words:].contiguous()),
            attn.to_add_out(mixed[:, :words].contiguous()),
        )


class ZImageProcessor(Processor):
    """Z-Image: one stream of image, padding and text, complex rotary positions of every row."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        freqs_cis: Tensor | None = None,
    ) -> Tensor:
        """Called by diffusers; attention_mask "r n" where rows differ in length."""
        query, key, value = _projected(attn, hidden_states)
        if freqs_cis is not None:
            turns = freqs_cis.unsqueeze(2)
            query, key = spun(query, turns), spun(key, turns)
        return _out(attn, self.mixed(query, key, value, attention_mask))


def turned(x: Tensor, positions: tuple[Tensor, Tensor] | None) -> Tensor:
    """Rotary positions of "r n heads d", given as cosines and sines "n d"; pairs are adjacent."""
    if positions is None:
        return x
    cos, sin = (part[None, :, None, :] for part in positions)
    real, imaginary = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
    quarter = torch.stack([-imaginary, real], dim=-1).flatten(3)
    return (x.float() * cos + quarter.float() * sin).to(x.dtype)


def spun(x: Tensor, turns: Tensor) -> Tensor:
    """Rotary positions of "r n heads d" as complex numbers, "n 1 d/2" or "r n 1 d/2"."""
    numbers = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(numbers * turns).flatten(3).type_as(x)


IMAGE = (("to_q", "norm_q"), ("to_k", "norm_k"), ("to_v", ""))
TEXT = (("add_q_proj", "norm_added_q"), ("add_k_proj", "norm_added_k"), ("add_v_proj", ""))


def _projected(attn: Any, features: Tensor, *, text: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values "r n heads d", normalised where the layer does so."""
    found: list[Tensor] = []
    for projection, norm in TEXT if text else IMAGE:
        part = getattr(attn, projection)(features).unflatten(-1, (attn.heads, -1))
        layer = getattr(attn, norm) if norm else None
        found.append(part if layer is None else layer(part))
    return found[0], found[1], found[2]


def _out(attn: Any, mixed: Tensor) -> Tensor:
    """The layer's output projection and dropout."""
    for layer in attn.to_out:
        mixed = layer(mixed)
    return mixed
