"""Source and targets denoised side by side, for Photoswap and prompt-to-prompt."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.device_copies import chosen
from understudy.diffusion.flow import FlowSchedule
from understudy.diffusion.guidance import guidance_of, reads_unconditional
from understudy.diffusion.sampler import advance
from understudy.diffusion.schedule import moves
from understudy.invert.source import MAP_TOKENS, NOTHING, UNCOND, WORDS
from understudy.models.interface import DiffusionModel
from understudy.transfer import source_target as given
from understudy.transfer.appearance import AppearanceRows
from understudy.transfer.background import background_rows
from understudy.transfer.batch_layout import (
    Branch,
    NeededRows,
    alike,
    branched,
    guided_source,
    guided_targets,
    lay_out,
    members_of,
)
from understudy.transfer.blend import Blend, blended
from understudy.transfer.control import SwapControl
from understudy.transfer.cross_maps import CrossMapsAt, alignment, steady
from understudy.transfer.joint import word_blocks
from understudy.transfer.schedule import Swaps, SwapSchedule
from understudy.transfer.source_target import Source, Target
from understudy.transfer.step import FreshNoise, StochasticNoise, SwapStep, around
from understudy.transfer.texts import RunTexts


def replay_steps(
    model: DiffusionModel,
    source: given.Sources,
    targets: given.Targets,
    schedule: SwapSchedule | Sequence[SwapSchedule],
    *,
    guidance: float,
    blend: Blend | None = None,
    map_tokens: int = MAP_TOKENS,
    cross_maps: CrossMapsAt | None = None,
    stochastic: StochasticNoise | None = None,
) -> Iterator[SwapStep]:
    """Denoise targets beside the source, swapping as the schedule says.

    All targets share the source's network evaluations; targets do not influence each other.

    Args:
        schedule: of all targets, or one for each. Targets of one prompt share their rows of the
            batch as long as their schedules agree.
        map_tokens: self-attention maps are swapped in layers of at most this many queries.
        cross_maps: what A does in a step that swaps it; None = the alignment of each prompt with
            the source's.
        stochastic: fresh noise; None = the inversion's own noise only.
    """
    run = Replay(
        model,
        given.source_of(source),
        given.targets_of(targets),
        schedule,
        guidance=guidance,
        blend=blend,
        map_tokens=map_tokens,
        cross_maps=cross_maps,
        stochastic=stochastic,
    )
    for index in range(run.inversion.steps):
        yield run.step(index)


class Replay:
    """One run of source and targets: what stays the same over its steps, and where it stands.

    See `replay_steps`. Call `step` for every index in order; `narrow` drops targets in between.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: DiffusionModel,
        source: Source,
        targets: Sequence[Target],
        schedule: SwapSchedule | Sequence[SwapSchedule],
        *,
        guidance: float,
        blend: Blend | None = None,
        map_tokens: int = MAP_TOKENS,
        cross_maps: CrossMapsAt | None = None,
        stochastic: StochasticNoise | None = None,
    ) -> None:
        one = isinstance(schedule, SwapSchedule)
        schedules = (schedule,) * len(targets) if one else tuple(schedule)
        inversion, features = source.inversion, source.features
        # Targets that cannot differ before their schedules do begin as one row of the batch; given
        # maps or embeddings may differ where prompts do not.
        apart = cross_maps is not None or any(target.text is not None for target in targets)
        same = list(range(len(targets))) if apart else alike([t.prompt for t in targets], blend)
        self.alike = same if stochastic is None else stochastic.parted(same)
        if cross_maps is None:
            pairs = [alignment(model, source.prompt, target.prompt) for target in targets]
            cross_maps = steady(model, pairs)
        self.model, self.inversion, self.schedules = model, inversion, schedules
        self.guidance, self.blend, self.map_tokens = guidance, blend, map_tokens
        self.how = guidance_of(model)
        self.texts = RunTexts.of(model, inversion, targets, self.how, guidance)
        self.reads_uncond = reads_unconditional(model, guidance, given.negative_of(targets))
        # Joint attention has no source rows that could be stored apart from the targets'.
        features = None if isinstance(model.schedule, FlowSchedule) else features
        self.cross_maps, self.features = cross_maps, features
        if features is not None:
            features.claim(inversion, guidance)
        self.size = (int(inversion.noise.shape[-2]), int(inversion.noise.shape[-1]))
        self.sums = None if blend is None else blend.sums(self.size, word_blocks(model))

        # Where the run stands: all targets begin as one branch, in the source's noise.
        self.together = True  # before the first step: source and targets are one latent
        self.latents: Tensor = inversion.noise
        self.source: Tensor | None = inversion.noise
        self.branches = (Branch(0, tuple(range(len(targets))), Swaps(False, False, False)),)
        # Without a blend the source is needed only as long as a schedule swaps anything.
        last = inversion.steps if blend else max(plan.last for plan in schedules) + 1
        self.path = self._known_path(last)
        self.fresh = None if stochastic is None or stochastic.eta == 0 else FreshNoise(stochastic)
        self.walked, self.needed = [inversion.noise], last  # needed: steps that read the source
        self.appearance: AppearanceRows | None = None
        # Outside of it attention reads the source's keys and values; None = nowhere.
        self.reads_around = blend.first_mask if blend is not None and blend.keys else None

    def begin_at(
        self,
        index: int,
        latents: Float[Tensor, "k c h w"],
        path: Float[Tensor, "n_1 c h w"] | None,
        appearance: AppearanceRows | None = None,
    ) -> None:
        """Start in step `index`, each target from latents of its own.

        path: the source's latents before each step and after the last; None if nothing reads them.
        """
        self.appearance = appearance
        self.together, self.latents, self.path = False, latents, path
        self.source = None if path is None else path[index : index + 1]
        self.alike = list(range(len(latents)))
        self.branches = tuple(Branch(n, (n,), Swaps(False, False, False)) for n in self.alike)

    @torch.no_grad()
    def step(self, index: int) -> SwapStep:
        """Take one step."""
        start, end = self.inversion.times[index : index + 2]
        before = self.model.nfe
        swaps = [schedule.at(index) for schedule in self.schedules]
        self.branches = branched(self.branches, swaps, self.alike)
        output, source_output = self._outputs(index, start, end)
        self.latents = clean = chosen(self.latents, [b.parent for b in self.branches])
        if output is not None:
            # The prediction of the clean latents: previews and schedule searches look at it.
            clean, _ = self.model.schedule.denoised(self.latents, output, start)
            self.latents = self._moved(output, index, start, end)
            if self.inversion.paired:
                self.latents = self._paired(index, source_output, start, end)
        self._move_source(index, source_output, start, end)
        numbers, of = members_of(self.branches)
        mask = None if self.blend is None else self.blend.after(index, self.sums, self.size)
        self.reads_around = mask if self.blend is not None and self.blend.keys else None
        if mask is not None and self.source is not None:
            mask = chosen(mask, numbers) if len(mask) > 1 else mask
            # Latents are kept once per branch, masks once per target: take its first target.
            firsts = [of.index(n) for n in range(len(self.branches))]
            each = chosen(mask, firsts) if len(mask) > 1 else mask
            left = None if index == self.inversion.steps - 1 else end
            kept = around(self.fresh, self.blend, self.source, left, self.model)
            self.latents = blended(kept, self.latents, each)
        taken = tuple(swaps[number] for number in numbers)
        after = (chosen(self.latents, of), chosen(clean, of), self.source)
        nfe = self.model.nfe - before
        return SwapStep(index, self.inversion.steps, start, numbers, *after, taken, mask, nfe)

    def _moved(self, output: Tensor, index: int, start: float, end: float) -> Tensor:
        """The targets after a step, with fresh noise in all but the last."""
        schedule = self.model.schedule
        eta = 0.0 if self.fresh is None else self.fresh.stochastic.eta
        # No noise after the last step: nothing would remove it.
        if self.fresh is None or index == self.inversion.steps - 1:
            return advance(schedule, self.latents, output, start, end)
        firsts = [branch.members[0] for branch in self.branches]
        fresh = self.fresh.next(firsts, self.latents.shape[1:], self.model)
        return advance(schedule, self.latents, output, start, end, eta=eta, fresh=fresh)

    def _paired(self, index: int, output: Tensor | None, start: float, end: float) -> Tensor:
        """The targets' steps relative to the source's, added to its stored latents.

        x*' + (step of the target - step of the source): exactly x*' where both steps are equal.
        """
        assert self.path is not None and self.source is not None and output is not None
        stepped = advance(self.model.schedule, self.source, output, start, end)
        return self.path[index + 1 : index + 2] + (self.latents - stepped)

    def narrow(self, survivors: Collection[int]) -> None:
        """Continue with these targets only."""
        kept = [
            (n, replace(branch, members=members))
            for n, branch in enumerate(self.branches)
            if (members := tuple(m for m in branch.members if m in survivors))
        ]
        if not kept:
            raise ValueError(f"at least one target must be left. Got {sorted(survivors)}.")
        self.latents = chosen(self.latents, [n for n, _ in kept])
        self.branches = tuple(branch for _, branch in kept)

    def _known_path(self, needed: int) -> Tensor | None:
        """The source's latents where they need not be walked."""
        kept = None if self.features is None else self.features.path
        if self.inversion.path is not None or kept is None:
            return self.inversion.path
        # A path kept by an earlier edit may be shorter, if that edit swapped in fewer steps.
        enough = len(kept) > needed - (self.blend is None)
        return kept.to(self.inversion.noise) if enough else None

    def _walks(self, index: int) -> bool:
        """Whether the source's output is needed in a step: for its own next latents, which
        something later reads, or because the targets move relative to it."""
        if self.inversion.paired:
            return True
        return self.path is None and index < self.needed - (self.blend is None)

    def _move_source(self, index: int, output: Tensor | None, start: float, end: float) -> None:
        if self.path is not None:
            known = self.path[index + 1 : index + 2]
            self.source = known if len(known) else None
        elif not self._walks(index):
            self.source = None
        elif self.source is not None and output is not None:
            self.source = advance(self.model.schedule, self.source, output, start, end)
        if self.path is None and self.source is not None:
            self.walked.append(self.source)
            if self.features is not None:
                self.features.path = torch.cat(self.walked)

    def _outputs(self, index: int, start: float, end: float) -> tuple[Tensor | None, Tensor | None]:
        """Guided outputs of branches and source for a step; None where they are not needed."""
        moving = moves(self.model.schedule, start, end)
        if not moving and self.sums is None:
            return None, None
        parts = NOTHING.union(*(branch.swaps.parts for branch in self.branches))
        first = index == 0 and self.together
        kept = None if self.features is None else self.features.first_output
        # What an edit or the inversion has kept of the first step.
        known = None if not first else self.inversion.first_output if kept is None else kept
        walks = self._walks(index)
        # A negative prompt is the targets' alone: their unconditional output is another one.
        shared = known if self.texts.negative is None else None
        guides = moving and self.reads_uncond and shared is None
        # Where phi is swapped the unconditional row reads the source's as well.
        parts |= UNCOND if guides and "output" in parts else NOTHING
        parts |= WORDS if self.sums is not None else NOTHING
        sums, features, shown = self.sums, self.features, self.appearance
        stored = features is not None and bool(parts) and features.has(index, parts) and not walks
        kept = self.reads_around
        needs = NeededRows(
            source_uncond="uncond" in parts
            or (guides and (kept is not None or (walks and known is None))),
            source_cond=bool(parts) or walks or kept is not None,
            target_uncond=guides,
            apart=kept is not None and len(kept) > 1,
        )
        where = lay_out(
            needs, self.texts.at(index), self.source, self.latents, self.branches,
            first=first, stored=stored,
        )  # fmt: skip
        where = where if shown is None else shown.added(where, index, start)
        maps = self.cross_maps(index) if "cross" in parts else ()
        around = None if kept is None else background_rows(where, self.branches, kept)
        control = SwapControl(
            where, self.branches, maps, self.map_tokens, sums, features, index, parts, shown, around
        )
        output = self.model.predict(where.latents, start, where.text, control)
        if sums is not None:
            sums.close_step()
        if features is not None and where.source_cond is not None and not where.stored:
            features.close_step(index, parts)
            if index == 0 and where.source_uncond is not None:
                features.first_output = output[where.source_uncond][None]
        # Between equal noise levels the call only records attention.
        if not moving:
            return None, None
        return (
            guided_targets(output, where, shared, self.how, self.guidance),
            guided_source(output, where, known, self.how, self.guidance),
        )
