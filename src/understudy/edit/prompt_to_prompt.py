"""Prompt-to-prompt: new words in the place of old ones, each seen where the old ones were.

Hertz et al. 2022, arXiv:2208.01626. The target takes cross-attention maps from the source, token by
token: replaced words the map of the word they replace, all words that both prompts have their own
old map, new words none; any word may be weighed. Self-attention maps pass as well in a window of
steps, in small layers only. Nothing is materialised for it: what changes a map's columns is a
`CrossMix`. Knows prompts and tokens; the loop is swap/replay.py's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jaxtyping import Float
from torch import Tensor

from understudy.attention.plan import CrossMix
from understudy.diffusion.text import Text
from understudy.edit.columns import Columns
from understudy.invert.inversion import Inversion
from understudy.invert.source import SourceFeatures
from understudy.models.interface import DiffusionModel
from understudy.transfer.blend import Blend
from understudy.transfer.cross_maps import MixesAt
from understudy.transfer.loop import SwapStep, replay_steps
from understudy.transfer.schedule import SwapSchedule
from understudy.transfer.step import StochasticNoise


def mixes_of(
    columns: Sequence[Columns],
    windows: Float[Tensor, "steps_1 targets length"],
    model: DiffusionModel,
) -> MixesAt:
    """What each target's maps are in each step: windows (`word_windows`) say when they pass.

    A window of 0 leaves a token its own map; where all have 0, nothing passes at all.
    """

    known: dict[tuple[int, bytes], CrossMix | None] = {}

    def mixes(index: int) -> list[CrossMix | None]:
        found = list[CrossMix | None]()
        for n, window in enumerate(windows[index]):
            key = n, window.numpy().tobytes()
            if key not in known:
                known[key] = _mix(columns[n], window.double(), model)
            found.append(known[key])
        return found

    return mixes


def _mix(columns: Columns, window: Tensor, model: DiffusionModel) -> CrossMix | None:
    if not bool(window.any()):
        return None
    own = columns.own * window + (1 - window)
    kept = own.to(model.device, model.dtype) if bool(own.any()) else None
    return CrossMix(0, (columns.shared * window).to(model.device, model.dtype), kept)


def prompt_to_prompt_steps(
    model: DiffusionModel,
    inversion: Inversion,
    targets: Sequence[str],
    columns: Sequence[Columns],
    windows: Float[Tensor, "steps_1 targets length"],
    self_maps: range,
    *,
    guidance: float,
    map_tokens: int,
    blend: Blend | None = None,
    texts: Text | None = None,
    features: SourceFeatures | None = None,
    stochastic: StochasticNoise | None = None,
) -> Iterator[SwapStep]:
    """Edit an inverted photo by its prompt, several targets in one pass of the source.

    Args:
        self_maps: the steps that take self-attention maps, in layers of at most map_tokens
            queries (16^2 in the authors' first notebook, 32^2 in that for real photos).
        blend: where latents may differ from the source's.
        texts: embeddings of the targets; None = those of their prompts.
        features: what earlier edits of this source kept, used and filled.
        stochastic: fresh noise, so that shapes may change too; None = the inversion's own all
            along.
    """
    steps = inversion.steps
    taking = windows[:steps].flatten(1).any(1).nonzero().flatten().tolist()
    cross = range(taking[0], taking[-1] + 1) if taking else range(0)
    return replay_steps(
        model,
        inversion,
        targets,
        SwapSchedule(steps, range(0), self_maps, cross),
        guidance=guidance,
        blend=blend,
        map_tokens=map_tokens,
        mixes=mixes_of(columns, windows, model),
        texts=texts,
        features=features,
        stochastic=stochastic,
    )
