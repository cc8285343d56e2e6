"""One denoising step as one model call: which rows it needs, and what passes between them.

A row is one latent with one embedding. The plain way costs four rows a step and target: source
and target, each unconditional and conditional. Rows that nothing reads are left out, and rows
that would be equal are computed once, so the target's result is the same up to rounding:

* the source's unconditional row is read by phi alone, and by the source's own guidance where its
  path is not known; its conditional row by phi, M, A and the blend's maps;
* neither is run again where an earlier edit has kept what is read of them (`SourceFeatures`);
* in the first step source and targets start from one latent, so their unconditional rows are one,
  and none where the inversion has kept that noise; not so where the targets have a negative
  prompt, which the source does not read;
* where the unconditional embedding is the source's own prompt, the source's two rows are one;
* targets of one prompt whose schedules agree so far are one target, a `Branch`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.diffusion.guidance import Guidance
from understudy.diffusion.text import Text
from understudy.transfer.blend import Blend
from understudy.transfer.schedule import Swaps


@dataclass(frozen=True)
class NeededRows:
    """Which rows a step's call must have; the targets' conditional rows are always there.

    apart: whether no two branches may have one unconditional row.
    """

    source_uncond: bool
    source_cond: bool
    target_uncond: bool
    apart: bool = False


@dataclass(frozen=True)
class Texts:
    """Embeddings of one step: unconditional, the source prompt's, the targets' prompts'.

    one_source_row: the unconditional embedding is the source prompt's own. negative: the targets'
    unconditional embedding where it is another than the source's.
    """

    uncond: Text
    source: Text
    targets: Text
    one_source_row: bool = False
    negative: Text | None = None


@dataclass(frozen=True)
class Branch:
    """Targets that are still one: the same latents, prompt, and swaps in this step.

    parent: which of the step's latents they start from; members: their numbers, ascending.
    """

    parent: int
    members: tuple[int, ...]
    swaps: Swaps


def branched(
    branches: Sequence[Branch], swaps: Sequence[Swaps], alike: Sequence[int]
) -> tuple[Branch, ...]:
    """The branches of the next step: those of this one, split where schedules part.

    swaps: of each target in that step; alike: equal numbers for targets that may share a branch.
    """
    found: dict[tuple[int, int, Swaps], list[int]] = {}
    for parent, branch in enumerate(branches):
        for member in branch.members:
            # Two targets stay in one row only while everything that can tell them apart is equal:
            # the latents they come from, prompt and mask, and the swaps of this step.
            found.setdefault((parent, alike[member], swaps[member]), []).append(member)
    return tuple(Branch(p, tuple(m), swap) for (p, _, swap), m in found.items())


def alike(targets: Sequence[str], blend: Blend | None) -> list[int]:
    """For each target the first that would be the same under the same schedule."""
    places = blend.target_places if blend is not None else ()
    mask = None if blend is None or blend.mask is None or len(blend.mask) == 1 else blend.mask

    def same(a: int, b: int) -> bool:
        blended_alike = not places or places[a] == places[b]
        masked_alike = mask is None or torch.equal(mask[a], mask[b])
        return targets[a] == targets[b] and blended_alike and masked_alike

    numbers = range(len(targets))
    return [next(first for first in numbers if same(first, number)) for number in numbers]


def members_of(branches: Sequence[Branch]) -> tuple[tuple[int, ...], list[int]]:
    """The numbers of all targets in order, and the branch of each."""
    pairs = sorted((m, n) for n, branch in enumerate(branches) for m in branch.members)
    return tuple(m for m, _ in pairs), [n for _, n in pairs]


@dataclass(frozen=True)
class BatchLayout:
    """Where each row of a call is. None or () stands for a row that is not in it.

    The targets' have one entry a branch. source_uncond may be source_cond, and target_uncond may
    be source_uncond: one row for both. stored: the source's rows are not in the call, but those
    of an earlier one, counted on after its last row.
    """

    source_uncond: int | None
    source_cond: int | None
    target_uncond: tuple[int, ...]
    target_cond: tuple[int, ...]
    latents: Float[Tensor, "rows c h w"]
    text: Text
    stored: bool = False

    @property
    def rows(self) -> int:
        """Rows of the call."""
        return len(self.latents)

    def pointing(self, pairs: Mapping[int, int | None]) -> tuple[int, ...] | None:
        """Every row pointing to itself, but these to others; None where there are no others."""
        # Rows without an entry point to themselves: their attention is computed as usual.
        pointers = list(range(self.rows))
        for row, other in pairs.items():
            pointers[row] = row if other is None else other
        return tuple(pointers) if pairs else None


def lay_out(
    needs: NeededRows,
    texts: Texts,
    source: Float[Tensor, "1 c h w"] | None,
    targets: Float[Tensor, "p c h w"],
    branches: Sequence[Branch],
    *,
    first: bool,
    stored: bool = False,
) -> BatchLayout:
    """Put the rows a step needs into one batch.

    Args:
        source: the source's latents; may be None where no source row is needed.
        targets: the latents that branches start from.
        first: source and targets still share one latent.
        stored: the source's rows come from an earlier call.
    """
    latents, text = list[Tensor](), list[Text]()

    def add(latent: Tensor, embedding: Text) -> int:
        latents.append(latent)
        text.append(embedding)
        return len(latents) - 1

    source_cond = source_uncond = None
    # Source rows come first, so that a control can refer to them by small, stable numbers.
    if needs.source_cond and source is not None and not stored:
        source_cond = add(source[0], texts.source)
    if needs.source_uncond and source is not None and not stored:
        # Negative-prompt inversion: both source rows would have the same latent and the same text.
        one = source_cond is not None and texts.one_source_row
        source_uncond = source_cond if one else add(source[0], texts.uncond)
    shared: dict[object, int] = {}
    uncond = texts.uncond if texts.negative is None else texts.negative
    # All runs start from the inversion's noise, so the unconditional rows of source and targets are
    # one in the first step, unless the targets have a negative prompt.
    one_row = first and texts.negative is None
    if one_row and source_uncond is not None:
        shared[0] = source_uncond
    target_uncond = list[int]()
    for branch in branches if needs.target_uncond else ():
        # phi changes the unconditional row as well, so rows with and without it differ.
        same = 0 if one_row else (branch.parent, branch.swaps.self_output)
        # In the first step all are one even so: there they are the source's own row.
        same = branch.members if needs.apart and not one_row else same
        if same not in shared:
            shared[same] = add(targets[branch.parent], uncond)
        target_uncond.append(shared[same])
    target_cond = [add(targets[b.parent], texts.targets[b.members[0]]) for b in branches]
    # Rows of an earlier call are numbered on after those of this one: attention reads them from the
    # features (`StoredRow`).
    if stored:
        source_cond, source_uncond = len(latents), len(latents) + 1
    rows = tuple(target_uncond), tuple(target_cond)
    return BatchLayout(
        source_uncond, source_cond, *rows, torch.stack(latents), Text.cat(text), stored
    )


def rows_of(noise: Float[Tensor, "rows c h w"], rows: Sequence[int]) -> Float[Tensor, "k c h w"]:
    """Some rows of the call's result."""
    return torch.stack([noise[row] for row in rows])


def guided_targets(
    output: Float[Tensor, "rows c h w"],
    where: BatchLayout,
    known: Float[Tensor, "1 c h w"] | None,
    how: Guidance,
    scale: float,
) -> Float[Tensor, "p c h w"]:
    """The branches' guided outputs. known: their unconditional output where it was not computed."""
    cond = rows_of(output, where.target_cond)
    if where.target_uncond:
        return how.combined(rows_of(output, where.target_uncond), cond, scale)
    return cond if known is None else how.combined(known.expand_as(cond), cond, scale)


def guided_source(
    output: Float[Tensor, "rows c h w"],
    where: BatchLayout,
    known: Float[Tensor, "1 c h w"] | None,
    how: Guidance,
    scale: float,
) -> Float[Tensor, "1 c h w"] | None:
    """The source's guided output; None where the call has no row of it."""
    if where.source_cond is None or where.stored:
        return None
    uncond = known if where.source_uncond is None else output[where.source_uncond][None]
    cond = output[where.source_cond][None]
    return cond if uncond is None else how.combined(uncond, cond, scale)
