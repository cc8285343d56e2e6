"""Image tokens that read no other image token: the perturbed rows of perturbed-attention guidance.

Ahn et al. 2024, arXiv:2403.17377, section 4: the self-attention map of a layer is replaced by the
identity matrix, so that the output is the values. In a joint layer the part of the map among image
tokens is replaced: a token reads itself and the words, in one softmax.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.attention.plan import Rows
from understudy.attention.projections import Projected
from understudy.device_copies import chosen


def own_and_others(given: Projected, image: slice, rows: Rows) -> Float[Tensor, "some h cells d"]:
    """What the image tokens of some rows read: themselves, and all that is not of the image.

    One fused call over the other keys and one more, which stands for the query's own: its logit
    q_i . k_i is given in channels of the query that only this key reads, and its value is an
    indicator, so that the output says how much of the own value v_i is to be added. No map of cells
    by cells, and no mask of that size.
    """
    query, key, value = (chosen(x, rows) for x in (given.query, given.key, given.value))
    q, own_key, own_value = query[:, :, image], key[:, :, image], value[:, :, image]
    others = [
        torch.cat([x[:, :, : image.start], x[:, :, image.stop :]], dim=2) for x in (key, value)
    ]
    count, d = others[0].shape[2], q.shape[-1]
    if not count:
        return own_value
    width = -(-(d + 2) // 8) * 8  # fused kernels want a multiple of 8
    finest = torch.promote_types(q.dtype, torch.float32)
    logit = (q.to(finest) * own_key.to(finest)).sum(dim=-1, keepdim=True)
    # Two numbers, because one of half precision would round the logit of the own key alone.
    high = logit.to(q.dtype)
    low = (logit - high.to(finest)).to(q.dtype)
    q = F.pad(torch.cat([q, high, low], dim=-1), (0, width - d - 2))
    k, v = (F.pad(x, (0, width - d, 0, 1)) for x in others)  # a key of zeros behind the others
    k[:, :, count, d : d + 2] = 1
    v[:, :, count, d] = 1
    mask = None
    if given.mask is not None:
        seen = chosen(given.mask, rows)
        seen = torch.cat([seen[:, : image.start], seen[:, image.stop :]], dim=1)
        mask = F.pad(seen, (0, 1), value=True)[:, None, None, :]
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=given.scale)
    return mixed[..., :d] + mixed[..., d : d + 1] * own_value
