"""Photoswap and null-text inversion the plain way: every row, every map, nothing shared.

What the package is compared with, in tests for its numbers and in `swap_speed` for its time and
memory: four rows a step, attention maps made whole and edited in place, the network's weights
asking for gradients, as the published methods are described and run. For one target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.diffusion.text import Text
from understudy.diffusion.words import Alignment
from understudy.transfer.schedule import SwapSchedule

SOURCE_U, TARGET_U, SOURCE_C, TARGET_C = range(4)


@dataclass
class Plain:
    """State of a plain swap: which step it is, and the cross maps summed so far.

    stores_all: keep every map of at most 1,024 queries, this step's and the sum of all so far, as
    the published attention store does; otherwise only what a blend reads.
    """

    schedule: SwapSchedule
    aligned: Alignment
    map_tokens: int
    step: int = 0
    sums: dict[int, Tensor] = field(default_factory=dict)
    layers: dict[int, int] = field(default_factory=dict)
    stores_all: bool = False
    store: dict[str, list[Tensor]] = field(default_factory=dict)


class PlainProcessor:
    """One attention layer, its maps materialised and swapped as the step says."""

    def __init__(self, plain: Plain | None, name: str) -> None:
        self.plain, self.name = plain, name

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        x, plain = hidden_states, self.plain
        is_cross = encoder_hidden_states is not None
        context = x if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            part.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for part in (attn.to_q(x), attn.to_k(context), attn.to_v(context))
        )
        maps = (q @ k.mT * attn.scale).softmax(-1)  # (rows, heads, n, n or tokens)
        swaps = None if plain is None else plain.schedule.at(plain.step)
        if plain is not None and swaps is not None:
            if is_cross:
                if swaps.cross_map:
                    maps[TARGET_C] = self._crossed(plain, maps)
                self._store(plain, maps)
            elif swaps.self_map and x.shape[1] <= plain.map_tokens:
                maps[TARGET_C] = maps[SOURCE_C]
            if plain.stores_all and x.shape[1] <= 1024:
                plain.store.setdefault(self.name, []).append(maps[2:])
        out = attn.to_out[0]((maps @ v).transpose(1, 2).flatten(2))
        if swaps is not None and not is_cross and swaps.self_output:
            out[TARGET_U], out[TARGET_C] = out[SOURCE_U], out[SOURCE_C]
        return out

    def _crossed(self, plain: Plain, maps: Tensor) -> Tensor:
        alphas = torch.tensor(plain.aligned.alphas).to(maps)
        aligned = maps[SOURCE_C][..., list(plain.aligned.mapper)]
        return aligned * alphas + maps[TARGET_C] * (1 - alphas)

    def _store(self, plain: Plain, maps: Tensor) -> None:
        if not self.name.startswith("mid"):
            cells = maps.shape[2]
            both = maps[[SOURCE_C, TARGET_C]].mean(1)  # (2, n, tokens)
            plain.sums[cells] = plain.sums.get(cells, 0) + both
            plain.layers[cells] = plain.layers.get(cells, 0) + 1


def be_plain(unet: torch.nn.Module, plain: Plain | None) -> None:
    """Put plain processors into every attention layer: give it a network of its own."""
    for name, module in unet.named_modules():
        if hasattr(module, "set_processor"):
            module.set_processor(PlainProcessor(plain, name))  # pyright: ignore


@torch.no_grad()
def plain_swap(
    model: Any,
    noise: Tensor,
    nulls: Sequence[Text],
    prompts: tuple[str, str],
    plain: Plain,
    *,
    guidance: float,
    times: tuple[float, ...],
    blend: tuple[int, int, tuple[int, ...], tuple[int, ...]] | None = None,
    negative: Text | None = None,
) -> list[Tensor]:
    """Latents [source, target] after each step. blend: start, cells, source and target places.
    negative: the target's unconditional embedding where it is not the source's.

    Leaves the plain processors in the model: give it one of its own.
    """
    be_plain(model.unet, plain)
    latents, text = noise.repeat(2, 1, 1, 1), model.embed(list(prompts))
    walked: list[Tensor] = []
    for index, (start, end) in enumerate(pairwise(times)):
        plain.step = index
        null = nulls[index].to(text)
        rows = Text.cat([null, null if negative is None else negative, text])
        eps = predict_noise(model, latents.repeat(2, 1, 1, 1), start, rows)
        eps = eps[:2] + guidance * (eps[2:] - eps[:2])
        latents = ddim_step(model.schedule, latents, eps, start, end)
        if blend is not None and index >= blend[0]:
            latents = _blended(latents, plain, *blend[1:])
        for name, maps in plain.store.items():
            plain.store[name] = [sum(maps[1:], maps[0])]  # the running sum, after each step
        walked.append(latents)
    return walked


def plain_null_text(
    model: Any, photo: Tensor, prompt: str, *, steps: int, guidance: float, inner_steps: int
) -> tuple[Tensor, list[Text]]:
    """The noise and a null embedding a step, as published: weights collect gradients as well.

    No early stop, so that two implementations do the same work.
    """
    be_plain(model.unet, None)
    model.unet.requires_grad_(True)
    text, null, path = model.embed([prompt]), model.embed([""]), [photo]
    pairs = list(pairwise(model.schedule.times(steps)))
    with torch.no_grad():
        for t, below in reversed(pairs):
            noise = predict_noise(model, path[-1], t, text)
            path.append(ddim_step(model.schedule, path[-1], noise, below, t))
    z, nulls = path[-1], list[Text]()
    for index, (t, end) in enumerate(pairs):
        wanted = path[steps - 1 - index]
        leaves = [values.detach().clone().requires_grad_() for values in null.trainable]
        null = null.with_trainable(leaves)
        adam = torch.optim.Adam(leaves, lr=1e-2 * (1 - index / 100))
        with torch.no_grad():
            eps_c = predict_noise(model, z, t, text)
        for _ in range(inner_steps):
            eps_u = predict_noise(model, z, t, null)
            after = ddim_step(model.schedule, z, eps_u + guidance * (eps_c - eps_u), t, end)
            adam.zero_grad()
            F.mse_loss(after, wanted).backward()
            adam.step()
        nulls.append(null.detach())
        with torch.no_grad():
            both = predict_noise(model, z.repeat(2, 1, 1, 1), t, Text.cat([null.detach(), text]))
            eps_u, eps_c = both.chunk(2)
            z = ddim_step(model.schedule, z, eps_u + guidance * (eps_c - eps_u), t, end)
    return path[-1], nulls


def predict_noise(model: Any, latents: Tensor, time: float, text: Text) -> Tensor:
    """epsilon of a model that predicts epsilon, or v (Salimans & Ho 2022, arXiv:2202.00512)."""
    output, a = model.predict(latents, time, text), model.schedule.alpha(time)
    if model.schedule.prediction == "epsilon":
        return output
    assert model.schedule.prediction == "v_prediction"
    return sqrt(a) * output + sqrt(1 - a) * latents


def ddim_step(schedule: Any, latents: Tensor, noise: Tensor, start: float, end: float) -> Tensor:
    """Song et al. 2020, arXiv:2010.02502, equation 12 with sigma 0, either way."""
    a, b = schedule.alpha(start), schedule.alpha(end)
    clean = (latents - sqrt(1 - a) * noise) / sqrt(a)
    return sqrt(b) * clean + sqrt(1 - b) * noise


def _blended(
    latents: Tensor, plain: Plain, cells: int, source: tuple[int, ...], target: tuple[int, ...]
) -> Tensor:
    height, width = latents.shape[-2:]
    scale = (height * width / cells) ** 0.5
    maps = plain.sums[cells]
    both = torch.stack([maps[0][:, list(source)].sum(-1), maps[1][:, list(target)].sum(-1)])
    both = both.reshape(2, 1, round(height / scale), round(width / scale))
    both = F.interpolate(F.max_pool2d(both, 3, 1, 1), size=(height, width))
    mask = both / both.amax((2, 3), keepdim=True) > 0.3
    return latents[:1] + (mask[:1] | mask).to(latents) * (latents - latents[:1])
