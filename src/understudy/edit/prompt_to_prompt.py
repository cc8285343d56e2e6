"""Prompt-to-prompt: words of a prompt are replaced, and keep the attention maps of the old words.

Hertz et al. 2022, arXiv:2208.01626. The target takes cross-attention maps from the source, token by
token: replaced words the map of the word they replace, all words that both prompts have their own
old map, new words none; any word may be reweighted. Self-attention maps are taken as well in a
window of steps, in small layers only. No map is materialised: a `CrossMix` says how the columns of
a map change. Knows prompts and tokens; the denoising loop is `transfer/loop.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from understudy.attention.plan import CrossMix
from understudy.edit.columns import Columns
from understudy.models.interface import DiffusionModel
from understudy.transfer.blend import Blend
from understudy.transfer.cross_maps import CrossMapsAt
from understudy.transfer.loop import SwapStep, replay_steps
from understudy.transfer.schedule import SwapSchedule
from understudy.transfer.source_target import Sources, Targets, source_of
from understudy.transfer.step import StochasticNoise


@dataclass(frozen=True)
class WordMaps:
    """Which of the source's cross-attention maps each target's words take, and when.

    columns: of each target. windows: the share of the source in each step, target and token; a
    window of 0 leaves a token its own map. The last row is not used by any step.
    """

    columns: Sequence[Columns]
    windows: Float[Tensor, "steps_1 targets length"]

    def steps(self, total: int) -> range:
        """From the first to the last of `total` steps in which any token takes the source's map."""
        taking = self.windows[:total].flatten(1).any(1).nonzero().flatten().tolist()
        return range(taking[0], taking[-1] + 1) if taking else range(0)

    def at(self, model: DiffusionModel) -> CrossMapsAt:
        """The maps of each step as `replay_steps` takes them."""
        # Windows repeat over many steps: each distinct mix is put on the device once.
        known: dict[tuple[int, bytes], CrossMix | None] = {}

        def maps(index: int) -> list[CrossMix | None]:
            found = list[CrossMix | None]()
            for n, window in enumerate(self.windows[index]):
                key = n, window.numpy().tobytes()
                if key not in known:
                    known[key] = _mix(self.columns[n], window.double(), model)
                found.append(known[key])
            return found

        return maps


def _mix(columns: Columns, window: Tensor, model: DiffusionModel) -> CrossMix | None:
    if not bool(window.any()):
        return None
    own = columns.own * window + (1 - window)
    kept = own.to(model.device, model.dtype) if bool(own.any()) else None
    return CrossMix(0, (columns.shared * window).to(model.device, model.dtype), kept)


def prompt_to_prompt_steps(
    model: DiffusionModel,
    source: Sources,
    targets: Targets,
    words: WordMaps,
    self_maps: range,
    *,
    guidance: float,
    map_tokens: int,
    blend: Blend | None = None,
    stochastic: StochasticNoise | None = None,
) -> Iterator[SwapStep]:
    """Edit an inverted photo by its prompt, several targets in one pass of the source.

    Args:
        self_maps: the steps that take self-attention maps, in layers of at most map_tokens
            queries (16^2 in the authors' first notebook, 32^2 in that for real photos).
        blend: where latents may differ from the source's.
        stochastic: fresh noise, so that shapes may change too; None = the inversion's own noise.
    """
    steps = source_of(source).inversion.steps
    return replay_steps(
        model,
        source,
        targets,
        SwapSchedule(steps, range(0), self_maps, words.steps(steps)),
        guidance=guidance,
        blend=blend,
        map_tokens=map_tokens,
        cross_maps=words.at(model),
        stochastic=stochastic,
    )
