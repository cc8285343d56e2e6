"""Attention processors of flow transformers: projections of each class, attention by a plan.

Without a control they compute what diffusers' own processors compute, operation by operation, so
outputs are bit-equal. With one, queries, keys and values after QK-norm and rotary positions go to
`attend_joint` (layers of the image alone: to `attend`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.attention.attend import Projections, attend, join_heads, split_heads
from understudy.attention.joint import Projected, attend_joint
from understudy.attention.site import AttentionSite
from understudy.models.transformer.calls import Calls


class Processor:
    """What the processors of all classes share: their layer's site and the call in progress."""

    def __init__(self, site: AttentionSite, calls: Calls) -> None:
        self.site, self.calls = site, calls

    def joint(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Attention of "r heads n d" over image and text; mask "r n": keys that may be read."""
        call, site, plan = self.calls.current, self.site, None
        if call is not None:
            site = call.placed(site, query.shape[2])
            plan = call.plan(site)
        if plan is None:
            seen = None if mask is None else mask[:, None, None, :]
            return F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        given = Projected(query, key, value, query.shape[-1] ** -0.5, mask)
        return attend_joint(given, site, plan)


class SD3Processor(Processor):
    """SD3's layers: image tokens first; without text it is the second, image-only attention."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Called by diffusers; hidden_states "r n c", encoder_hidden_states "r tokens c"."""
        if encoder_hidden_states is None:
            return self._alone(attn, hidden_states)
        cells = hidden_states.shape[1]
        query = torch.cat(
            [_heads(attn, "to_q", "norm_q", hidden_states),
             _heads(attn, "add_q_proj", "norm_added_q", encoder_hidden_states)], dim=2
        )  # fmt: skip
        key = torch.cat(
            [_heads(attn, "to_k", "norm_k", hidden_states),
             _heads(attn, "add_k_proj", "norm_added_k", encoder_hidden_states)], dim=2
        )  # fmt: skip
        value = torch.cat(
            [_heads(attn, "to_v", "", hidden_states),
             _heads(attn, "add_v_proj", "", encoder_hidden_states)], dim=2
        )  # fmt: skip
        mixed = join_heads(self.joint(query, key, value)).to(query.dtype)
        image, text = mixed[:, :cells], mixed[:, cells:]
        if not attn.context_pre_only:
            text = attn.to_add_out(text)
        return attn.to_out[1](attn.to_out[0](image)), text

    def _alone(self, attn: Any, hidden_states: Tensor) -> Tensor:
        layer = Projections(
            query=lambda x: join_heads(_heads(attn, "to_q", "norm_q", x)),
            key=lambda x: join_heads(_heads(attn, "to_k", "norm_k", x)),
            value=attn.to_v,
            out=lambda mixed: attn.to_out[1](attn.to_out[0](mixed)),
            heads=attn.heads,
            scale=(attn.to_q.out_features // attn.heads) ** -0.5,
        )
        call, site, plan = self.calls.current, self.site, None
        if call is not None:
            site = call.placed(self.site, hidden_states.shape[1])
            plan = call.plan(site)
        return attend(hidden_states, hidden_states, layer, site, plan)


def _heads(attn: Any, projection: str, norm: str, features: Tensor) -> Tensor:
    """A projection of features, split into heads "r heads n d", and normalised if it is."""
    found = split_heads(getattr(attn, projection)(features), attn.heads)
    layer = getattr(attn, norm) if norm else None
    return found if layer is None else layer(found)
