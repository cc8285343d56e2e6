"""Make the outermost level of a trained U-Net twice as wide, so that training goes on from there.

Net2Net (Chen et al. 2016): every channel (and attention head) of the level is there twice, and
what reads a pair reads half of each, a little more of one than of the other, so that the two part
in training. The function stays nearly as it was: two normalisations see pairs beside single
channels, and between levels that are equally wide now a shortcut is no longer learnt.
"""

from __future__ import annotations

import torch

HEAD = 32  # channels of an attention head
UNEVEN = 0.3  # how much more of one channel of a pair is read than of the other
# Inputs that join a deeper level's channels with those of the widened one: how many of the first.
JOINED = {"up_blocks.1.resnets.1": 128, "up_blocks.2.resnets.0": 128}


def widened(old: dict[str, torch.Tensor], new: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The parameters `old` in the shapes of `new`; as they are where those are the same."""
    made: dict[str, torch.Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    for name, wanted in new.items():
        value = old[name]
        if name.endswith("time_embedding.linear_1.weight") and value.shape != wanted.shape:
            made[name] = _frequencies(value)
            continue
        if value.shape[0] != wanted.shape[0]:
            value = value[_twice(name, value.shape[0], wanted.shape[0], output=True)]
        if value.dim() > 1 and value.shape[1] != wanted.shape[1]:
            places = _twice(name, value.shape[1], wanted.shape[1], output=False)
            shares = torch.bincount(places)[places].view(1, -1, *[1] * (value.dim() - 2))
            value = _parted(value[:, places] / shares, places, generator)
        if value.shape != wanted.shape:
            raise SystemExit(
                f"{name} of {tuple(value.shape)} does not become one of {tuple(wanted.shape)}."
            )
        made[name] = value.clone()
    return made


def _twice(name: str, old: int, new: int, *, output: bool) -> torch.Tensor:
    """Which old channel each new one is."""
    single = next((n for place, n in JOINED.items() if place in name), 0)
    joined = ".norm1." in name or (not output and (".conv1." in name or "_shortcut." in name))
    if single and joined:
        alone, pairs = torch.arange(single), torch.arange(single, old)
        return torch.cat([alone, pairs.repeat_interleave((new - single) // (old - single))])
    of_heads = (".to_q.", ".to_k.", ".to_v.") if output else (".to_out.0.",)
    if any(part in name for part in of_heads):  # whole heads, one beside the other
        return torch.arange(old).view(-1, HEAD).repeat_interleave(new // old, dim=0).flatten()
    return torch.arange(old).repeat_interleave(new // old)


def _parted(value: torch.Tensor, places: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift weight from the first of each pair to the second; their sum stays."""
    value = value.clone()
    order = torch.argsort(places, stable=True)
    first = order[:-1][places[order][:-1] == places[order][1:]]
    second = order[1:][places[order][:-1] == places[order][1:]]
    shift = value[:, first] * UNEVEN * torch.randn(value[:, first].shape, generator=generator)
    value[:, first] += shift
    value[:, second] -= shift
    return value


def _frequencies(value: torch.Tensor) -> torch.Tensor:
    """Twice as many frequencies of time, of which every other one is an old one."""
    old = value.shape[1]
    made = torch.zeros(value.shape[0], 2 * old)
    made[:, 0::2] = value
    return made
