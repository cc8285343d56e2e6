"""Photoswap and null-text inversion the plain way: every row, every map, nothing shared.

The slow reference that the package is compared with: four rows a step, attention maps made whole
and edited in place, as the published method is described. For one target.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.diffusion import ddim_step, next_lower
from understudy.swap.schedule import SwapSchedule
from understudy.words import Alignment

SOURCE_U, TARGET_U, SOURCE_C, TARGET_C = range(4)


@dataclass
class Plain:
    """State of a plain swap: which step it is, and the cross maps summed so far."""

    schedule: SwapSchedule
    aligned: Alignment
    map_tokens: int
    step: int = 0
    sums: dict[int, Tensor] = field(default_factory=dict)
    layers: dict[int, int] = field(default_factory=dict)


class PlainProcessor:
    """One attention layer, its maps materialised and swapped as the step says."""

    def __init__(self, plain: Plain, name: str) -> None:
        self.plain, self.name = plain, name

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        x, swaps = hidden_states, self.plain.schedule.at(self.plain.step)
        is_cross = encoder_hidden_states is not None
        context = encoder_hidden_states if is_cross else x
        q, k, v = (
            part.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for part in (attn.to_q(x), attn.to_k(context), attn.to_v(context))
        )
        maps = (q @ k.mT * attn.scale).softmax(-1)  # (4, heads, n, n or tokens)
        if is_cross:
            if swaps.cross_map:
                maps[TARGET_C] = self._crossed(maps)
            self._store(maps)
        elif swaps.self_map and x.shape[1] <= self.plain.map_tokens:
            maps[TARGET_C] = maps[SOURCE_C]
        out = attn.to_out[0]((maps @ v).transpose(1, 2).flatten(2))
        if not is_cross and swaps.self_output:
            out[TARGET_U], out[TARGET_C] = out[SOURCE_U], out[SOURCE_C]
        return out

    def _crossed(self, maps: Tensor) -> Tensor:
        alphas = torch.tensor(self.plain.aligned.alphas).to(maps)
        aligned = maps[SOURCE_C][..., list(self.plain.aligned.mapper)]
        return aligned * alphas + maps[TARGET_C] * (1 - alphas)

    def _store(self, maps: Tensor) -> None:
        if not self.name.startswith("mid"):
            cells = maps.shape[2]
            both = maps[[SOURCE_C, TARGET_C]].mean(1)  # (2, n, tokens)
            self.plain.sums[cells] = self.plain.sums.get(cells, 0) + both
            self.plain.layers[cells] = self.plain.layers.get(cells, 0) + 1


@torch.no_grad()
def plain_swap(
    model,
    noise: Tensor,
    nulls: list[Tensor],
    prompts: tuple[str, str],
    plain: Plain,
    *,
    guidance: float,
    timesteps: tuple[int, ...],
    blend: tuple[int, int, tuple[int, ...], tuple[int, ...]] | None = None,
) -> list[Tensor]:
    """Latents [source, target] after each step. blend: start, cells, source and target places.

    Leaves the plain processors in the model: give it one of its own.
    """
    for name, module in model.unet.named_modules():
        if hasattr(module, "set_processor"):
            module.set_processor(PlainProcessor(plain, name))
    latents, text = noise.repeat(2, 1, 1, 1), model.embed(list(prompts))
    walked = []
    for index, timestep in enumerate(timesteps):
        plain.step = index
        rows = torch.cat([nulls[index].to(text).repeat(2, 1, 1), text])
        eps = model.predict_noise(latents.repeat(2, 1, 1, 1), timestep, rows)
        eps = eps[:2] + guidance * (eps[2:] - eps[:2])
        end = next_lower(model.schedule, len(timesteps), timestep)
        latents = ddim_step(model.schedule, latents, eps, timestep, end)
        if blend is not None and index >= blend[0]:
            latents = _blended(latents, plain, *blend[1:])
        walked.append(latents)
    return walked


def _blended(latents: Tensor, plain: Plain, cells: int, source, target) -> Tensor:
    height, width = latents.shape[-2:]
    scale = (height * width / cells) ** 0.5
    maps = plain.sums[cells]
    both = torch.stack([maps[0][:, list(source)].sum(-1), maps[1][:, list(target)].sum(-1)])
    both = both.reshape(2, 1, round(height / scale), round(width / scale))
    both = F.interpolate(F.max_pool2d(both, 3, 1, 1), size=(height, width))
    mask = both / both.amax((2, 3), keepdim=True) > 0.3
    return latents[:1] + (mask[:1] | mask).to(latents) * (latents - latents[:1])
