"""KV-Edit: a region is drawn anew while the rest keeps the keys and values of the inversion.

Zhu et al. 2025, arXiv:2502.17363. Outside a mask the latents are the inversion's own, and in every
attention layer the tokens there have the keys and values that they had in the inversion, so that
the region sees the photo's background and the background stays as it was, exactly.

The authors store keys and values of all steps and layers. Here the photo's latents of the step are
one more row of the same call: no memory, and no second pass with the same time. With direct
inversion the region moves by the photo's own step plus the difference of the two velocities, so
that equal prompts and guidance scales return the photo; after other inversions it moves by its own
velocity, as published. Knows models through their protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.attention.plan import AttentionPlan
from understudy.attention.site import AttentionSite
from understudy.diffusion.guidance import guidance_of, reads_unconditional
from understudy.diffusion.sampler import advance, starting_noise
from understudy.diffusion.text import Text
from understudy.edit.flow_edit import check_flow
from understudy.edit.step import EditStep
from understudy.errors import InputError
from understudy.invert.inversion import Inversion
from understudy.models.interface import DiffusionModel
from understudy.settings import EditSettings
from understudy.transfer.background import BackgroundRows
from understudy.transfer.blend import blended, latent_mask

NO_MASK = "--method kv-edit draws a region anew. Say which: --mask FILE or --select WORD."


@dataclass(frozen=True)
class BackgroundControl:
    """Rows of targets take the keys and values of their background from rows of the photo.

    hides: see `EditSettings.attn_mask`.
    """

    rows: BackgroundRows
    hides: bool = False

    def plan(self, site: AttentionSite) -> AttentionPlan:
        """The same in every layer in which image tokens are read."""
        kept = self.rows.at(site)
        # Where targets differ in their masks, the photo's rows hide what any of them may change.
        regions = torch.stack([~one.cells for one in kept.values()]).any(0)
        hidden = dict.fromkeys(self.rows.sources.values(), regions) if self.hides else {}
        return AttentionPlan(background=kept, hidden=hidden)


@torch.no_grad()
def kv_edit_steps(
    model: DiffusionModel,
    inversion: Inversion,
    texts: Text,
    mask: Float[Tensor, "m 1 h w"] | None,
    settings: EditSettings,
) -> Iterator[EditStep]:
    """Draw the region of a mask anew for k targets, a step at a time.

    Args:
        inversion: of as many steps as the edit, with the photo's path.
        texts: the targets' embeddings.
        mask: of the picture, one for all targets or one for each; a cell of the latents may change
            where the mask touches it.

    Raises InputError for a model that is no flow model, for an inversion without a path, and
    without a mask.
    """
    check_flow(model, settings.method)
    if mask is None:
        raise InputError(NO_MASK)
    path = inversion.path
    if path is None:
        raise InputError("kv-edit needs the photo's latents of every step. Invert the photo.")
    height, width = path.shape[-2:]
    may_change = latent_mask(mask, (height, width)).to(path.device) > 0
    call = _Call(model, inversion.prompt, texts, ~may_change[:, 0], settings)
    times, region = inversion.times, may_change.to(path.dtype)
    skipped = len(times) - 1 - min(settings.n_max, len(times) - 1)
    total, before = len(times) - 1 - skipped, model.nfe
    target = path[skipped : skipped + 1].expand(len(texts), -1, -1, -1)
    if settings.re_init:
        shape = (path.shape[1], path.shape[2], path.shape[3])
        noise = starting_noise([settings.noise_seed], shape, like=model).to(path)
        fresh = model.schedule.noised(path[-1:], noise, times[skipped])
        target = blended(target, fresh.expand_as(target), region)
    for index, (start, end) in enumerate(pairwise(times)):
        if index < skipped:
            continue
        now, then = path[index : index + 1], path[index + 1 : index + 2]
        ours, theirs = call.velocities(target, now, start)
        moved = advance(model.schedule, target, ours, start, end)
        if inversion.paired:
            moved = then + (moved - advance(model.schedule, now, theirs, start, end))
        target = blended(then, moved, region)
        yield EditStep(index - skipped, total, start, target, region, model.nfe - before)
        before = model.nfe
    if not total:  # skipped is the number of all steps, so target is the photo
        yield EditStep(0, 1, 0.0, target, region, 0)


class _Call:
    """Velocities of targets and photo from one call: the photo's rows first."""

    def __init__(
        self,
        model: DiffusionModel,
        prompt: str,
        texts: Text,
        background: Bool[Tensor, "m h w"],
        settings: EditSettings,
    ) -> None:
        self.model, self.how, self.settings = model, guidance_of(model), settings
        said = model.embed([prompt])
        guides = reads_unconditional(model, settings.guidance, settings.negative)
        self.guides = guides | reads_unconditional(model, settings.source_guidance)
        if self.how.kind == "embedded":
            said, texts = said.guided(settings.source_guidance), texts.guided(settings.guidance)
        # The photo is run without the negative prompt, as it was inverted.
        empty, negative = model.embed([""]), model.embed([settings.negative])
        count = len(texts)
        # Both halves of guidance have a row of the photo, so that each sees its own background.
        halves = [said, empty] if self.guides else [said]
        targets = [texts, negative.expand(count)] if self.guides else [texts]
        self.text, self.count = Text.cat([*halves, *targets]), count
        rows = range(len(halves), len(halves) + count * len(halves))
        which = background.expand(count, -1, -1)
        kept = BackgroundRows(
            {row: place // count for place, row in enumerate(rows)},
            {row: which[place % count] for place, row in enumerate(rows)},
            settings.attn_scale,
        )
        self.control = BackgroundControl(kept, settings.attn_mask)

    def velocities(
        self, target: Float[Tensor, "k c h w"], photo: Float[Tensor, "1 c h w"], time: float
    ) -> tuple[Float[Tensor, "k c h w"], Float[Tensor, "1 c h w"]]:
        """The guided velocities of the targets and of the photo."""
        times = 2 if self.guides else 1
        latents = torch.cat([*[photo] * times, *[target] * times])
        output = self.model.predict(latents, time, self.text, self.control)
        theirs, ours = output[:times], output[times:]
        if not self.guides:
            return ours, theirs
        cond, uncond = ours.split(self.count)
        settings = self.settings
        return (
            self.how.combined(uncond, cond, settings.guidance),
            self.how.combined(theirs[1:], theirs[:1], settings.source_guidance),
        )
