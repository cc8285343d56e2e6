"""Controls of SwapBench, whose scores are known beforehand: the perfect answer, no swap at all, and
cutting the toy out of a photo. They need no model."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from understudy.errors import InputError
from understudy.evaluate.bench import BenchCase, Known
from understudy.evaluate.setup import Setup

Picture = Float[Tensor, "1 3 h w"]


def known(case: BenchCase) -> Known:
    if case.known is None:
        raise InputError(f"{case.name}: this method needs a known right answer, as toys have.")
    return case.known


def right_answer(case: BenchCase, setup: Setup | None) -> Picture:
    return known(case).right


def no_swap(case: BenchCase, setup: Setup | None) -> Picture:
    return case.source


def copy_paste(case: BenchCase, setup: Setup | None) -> Picture:
    """The toy cut out of the first photo, scaled to the height of the one it covers."""
    photo, source, seen = case.photos[:1], case.source.clone(), known(case)
    cut = _box(seen.photo_masks[0, 0])
    put = _box(seen.source_mask[0, 0])
    tall, side = put[1] - put[0], source.shape[-1]
    wide = max(1, min(side, round(tall * (cut[3] - cut[2]) / (cut[1] - cut[0]))))
    both = torch.cat([photo, seen.photo_masks[:1]], dim=1)
    both = both[..., cut[0] : cut[1], cut[2] : cut[3]]
    both = F.interpolate(both, (tall, wide), mode="bilinear", antialias=True)
    left = max(0, min(side - wide, (put[2] + put[3] - wide) // 2))
    place = (..., slice(put[0], put[1]), slice(left, left + wide))
    source[place] = both[:, 3:] * both[:, :3] + (1 - both[:, 3:]) * source[place]
    return source


def _box(mask: Float[Tensor, "h w"]) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of the pixels over 0.5; the whole picture where there are none."""
    ys, xs = ((mask > 0.5).any(dim=d).nonzero() for d in (1, 0))
    if not len(ys):
        return 0, mask.shape[0], 0, mask.shape[1]
    return int(ys.min()), int(ys.max()) + 1, int(xs.min()), int(xs.max()) + 1
