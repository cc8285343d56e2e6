"""Prompt-to-prompt and plug-and-play the plain way: every row, every map, nothing shared.

The slow reference for the package's edits: unconditional rows, then conditional ones, source first;
maps made whole and edited in place, as the published methods are described.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from plain_ddim import ddim_step, predict_noise
from understudy.diffusion.text import Text
from understudy.transfer.blend import Blend

Edited = Callable[[Tensor, Tensor], Tensor]  # source's map, own map (heads, n, tokens) -> the edit


@dataclass
class Plain:
    """edits: one a target; windows: (steps + 1, targets, tokens)."""

    edits: list[Edited]
    windows: Tensor
    self_maps: range
    map_tokens: int
    step: int = 0
    sums: dict[int, Tensor] = field(default_factory=dict)


class PlainProcessor:
    """One attention layer, its maps materialised and edited as the step says."""

    def __init__(self, plain: Plain, name: str) -> None:
        self.plain, self.name = plain, name

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        plain, x = self.plain, hidden_states
        is_cross = encoder_hidden_states is not None
        context = encoder_hidden_states if is_cross else x
        q, k, v = split(attn, x, context)
        maps = (q @ k.mT * attn.scale).softmax(-1)
        source, *targets = range(len(maps) // 2, len(maps))
        for n, target in enumerate(targets):
            if is_cross:
                window = plain.windows[plain.step, n].to(maps)
                edit = plain.edits[n](maps[source], maps[target])
                maps[target] = edit * window + maps[target] * (1 - window)
            elif plain.step in plain.self_maps and x.shape[1] <= plain.map_tokens:
                maps[target] = maps[source]
        if is_cross and not self.name.startswith("mid"):
            shown = maps[source:].mean(1)
            plain.sums[x.shape[1]] = plain.sums.get(x.shape[1], 0) + shown
        return attn.to_out[0]((maps @ v).transpose(1, 2).flatten(2))


def split(attn, x, context):
    parts = attn.to_q(x), attn.to_k(context), attn.to_v(context)
    return (part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in parts)


def refining(mapper, alphas) -> Edited:
    alphas = torch.tensor(alphas)
    return lambda source, own: (
        source[..., list(mapper)] * alphas.to(own) + own * (1 - alphas.to(own))
    )


def replacing(matrix: Tensor) -> Edited:
    return lambda source, own: torch.einsum("hpw,wn->hpn", source, matrix.to(source))


def weighing(edit: Edited, weights: dict[int, float]) -> Edited:
    def weighed(source: Tensor, own: Tensor) -> Tensor:
        edited = edit(source, own)
        for place, weight in weights.items():
            edited[..., place] = edited[..., place] * weight
        return edited

    return weighed


@torch.no_grad()
def plain_p2p(
    model,
    noise: Tensor,
    nulls: list[Text],
    texts: Text,
    plain: Plain,
    *,
    guidance: float,
    times: tuple[float, ...],
    blend: Blend | None = None,
    cells: int = 256,
    negative: Text | None = None,
) -> tuple[list[Tensor], Tensor | None]:
    """Latents (source, targets) after each step, and the last mask; texts: source first.
    negative: the targets' unconditional embedding where it is not the source's.

    Leaves the plain processors in the model: give it one of its own, or `restored`.
    """
    for name, module in model.unet.named_modules():
        if hasattr(module, "set_processor"):
            module.set_processor(PlainProcessor(plain, name))
    count, mask, walked = len(texts), None, list[Tensor]()
    latents = noise.repeat(count, 1, 1, 1)
    for index, (timestep, end) in enumerate(pairwise(times)):
        plain.step = index
        null = nulls[index].to(texts)
        others = (null if negative is None else negative).expand(count - 1)
        rows = Text.cat([null, others, texts])
        eps = predict_noise(model, latents.repeat(2, 1, 1, 1), timestep, rows)
        eps = eps[:count] + guidance * (eps[count:] - eps[:count])
        latents = ddim_step(model.schedule, latents, eps, timestep, end)
        if blend is not None and index >= blend.start:
            mask = found(plain.sums[cells], blend, latents.shape[-2:])
            latents = latents[:1] + mask.to(latents) * (latents - latents[:1])
        walked.append(latents)
    return walked, mask


def found(maps: Tensor, blend: Blend, size) -> Tensor:
    """The published LocalBlend; maps: (prompts, cells, tokens)."""

    def above(places, threshold, pool):
        each = [m[:, list(p)].sum(-1) for m, p in zip(maps, places, strict=True)]
        scale = (size[0] * size[1] / maps.shape[1]) ** 0.5
        both = torch.stack(each).reshape(-1, 1, round(size[0] / scale), round(size[1] / scale))
        both = F.max_pool2d(both, 3, 1, 1) if pool else both
        both = F.interpolate(both, size=size)
        mask = both / both.amax((2, 3), keepdim=True) > threshold
        return mask[:1] | mask

    mask = above((blend.source_places, *blend.target_places), blend.threshold, True)
    if blend.kept_places:
        mask = mask & ~above(blend.kept_places, blend.kept_threshold, False)
    return mask


class PlainInjection:
    """Plug-and-play in one decoder layer: queries and keys of row 0 for all."""

    def __init__(self, state: dict[str, bool], injects: bool) -> None:
        self.state, self.injects = state, injects

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = split(attn, hidden_states, context)
        maps = (q @ k.mT * attn.scale).softmax(-1)
        if self.injects and self.state["maps"] and encoder_hidden_states is None:
            maps[1:] = maps[:1]
        return attn.to_out[0]((maps @ v).transpose(1, 2).flatten(2))


@torch.no_grad()
def plain_pnp(
    model,
    path: Tensor,
    texts: tuple[Text, Text, Text],
    layers: list[str],
    convolution: str,
    *,
    guidance: float,
    times: tuple[float, ...],
    map_steps: int,
    feature_steps: int,
) -> list[Tensor]:
    """Latents (1, c, h, w) after each step. texts: empty, negative, target; layers: self-attentions
    that take row 0's queries and keys; convolution: whose output row 0 gives to all."""
    state = {"maps": False, "features": False}
    for name, module in model.unet.named_modules():
        if hasattr(module, "set_processor"):
            module.set_processor(PlainInjection(state, name in layers))

    def take(module, given, output):
        if state["features"]:
            output[1:] = output[:1]
        return output

    handle = model.unet.get_submodule(convolution).register_forward_hook(take)
    x, walked = path[:1], list[Tensor]()
    for index, (timestep, end) in enumerate(pairwise(times)):
        state |= {"maps": index < map_steps, "features": index < feature_steps}
        rows = torch.cat([path[index : index + 1], x, x])
        eps = predict_noise(model, rows, timestep, Text.cat(texts))
        x = ddim_step(model.schedule, x, eps[1:2] + guidance * (eps[2:] - eps[1:2]), timestep, end)
        walked.append(x)
    handle.remove()
    return walked
