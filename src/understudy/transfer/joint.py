"""Photoswap's and prompt-to-prompt's swaps in joint attention: image and text share a softmax.

All are swaps of logits and values of image queries, one fused call in each layer:

    M    logits of the pixels are the source's; values, and what the words say, are the own ones
    phi  as M, and the values of the pixels are the source's, too: what a token reads from the
         picture is the source's, what it reads from the words stays its own
    A    logits of words are those of the source's words that answer to them

Text queries stay the target's own. M and A act on the conditional row, phi on both rows of
guidance. Knows rows of a call; knows nothing of steps, latents or prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from understudy.attention.plan import AttentionPlan, CrossMix, LogitMix, Recording, Segments
from understudy.attention.site import AttentionSite
from understudy.models.interface import DiffusionModel
from understudy.transfer.batch_layout import BatchLayout, Branch

# Blocks whose image-reads-text attention shows words best (Shin et al. 2025, arXiv:2508.07519), by
# the class of the transformer, its number of double blocks and whether some attend twice.
WORD_BLOCKS = {
    ("SD3Transformer2DModel", 24, False): (7, 8, 5, 4, 9),
    ("SD3Transformer2DModel", 24, True): (7, 9, 8, 5, 10),
    ("SD3Transformer2DModel", 38, False): (18, 21, 20, 24, 16),
    ("FluxTransformer2DModel", 19, False): (18, 17, 12, 14, 11),
}


def joint_plan(
    where: BatchLayout,
    branches: Sequence[Branch],
    cross_maps: Sequence[CrossMix | None],
    map_tokens: int,
    site: AttentionSite,
    record: Recording | None = None,
) -> AttentionPlan:
    """What passes between the rows of a call in a joint layer."""
    logits, values = dict[int, int | None](), dict[int, int | None]()
    words = dict[int, LogitMix]()
    length = site.text.stop - site.text.start
    for number, branch in enumerate(branches):
        cond = where.target_cond[number]
        if branch.swaps.self_output:
            # With the source's logits and values among pixels a token reads the picture as the
            # source did: the joint-attention counterpart of swapping the output.
            logits[cond] = values[cond] = where.source_cond
            if where.target_uncond:
                uncond = where.target_uncond[number]
                logits[uncond] = values[uncond] = where.source_uncond
        elif branch.swaps.self_map and site.cells <= map_tokens:
            # Logits among pixels only: values and all logits of words stay the target's.
            logits[cond] = where.source_cond
        mix = cross_maps[branch.members[0]] if branch.swaps.cross_map else None
        # Logits of words are exchanged before the softmax, so that they compete with the pixels'
        # logits as they did in the source.
        if mix is not None and where.source_cond is not None:
            words[cond] = mix.logits.of(where.source_cond, length)
    read, taken = Segments(image=where.pointing(logits)), Segments(image=where.pointing(values))
    return AttentionPlan(
        query_from=read, key_from=read, value_from=taken, words=words, record=record
    )


def word_blocks(model: DiffusionModel) -> frozenset[int] | None:
    """The blocks in which words are looked for; None = in all, as in U-Nets and unknown sizes."""
    network = model.trainable_modules().get("transformer")
    if network is None:
        return None
    config: Any = cast(Any, network).config
    twice = bool(getattr(config, "dual_attention_layers", ()))
    key = (type(network).__name__, int(getattr(config, "num_layers", 0)), twice)
    found = WORD_BLOCKS.get(key)
    return None if found is None else frozenset(found)
