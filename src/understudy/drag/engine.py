"""One step of a drag: features, tracking, supervision, Adam. Values in, values out.

The order is that of the authors' program: handles are tracked first, on the same features that
supervision then pulls at their new places, so that a step costs one walk through the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.drag.prior import LatentPrior
from understudy.drag.region import FeatureView, Grid, look
from understudy.drag.rules import feature_resolutions, feature_tracker, fixed_part, supervision_of
from understudy.drag.state import Anchor, Findings, State, findings
from understudy.drag.supervision import MaskedBox, mask_term
from understudy.drag.tracking import Sight, Tracker
from understudy.errors import InputError, ModelError
from understudy.generators.interface import HeldLatent, ImageGenerator
from understudy.settings.drag import DragSettings

BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam's, as everybody has them
PUBLISHED_SIZE = 512  # pixels; what lengths in the settings refer to
WIDER = 3  # how much wider a search follows a doubtful one
Terms = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Engine:
    """A generator, a latent and settings, ready to step.

    start: the whole latent the drag began from. fixed: what may not change, with its cells.
    grid, resolution: of supervision's features; tracking: those of tracking, where they differ.
    prior: how latents of W vary, where settings ask for it.
    """

    held: HeldLatent
    start: Float[Tensor, "1 num_ws w_dim"]
    grid: Grid
    resolution: int
    settings: DragSettings
    fixed: MaskedBox | None
    tracker: Tracker
    tracking: tuple[int, Grid] | None = None
    prior: LatentPrior | None = None

    @classmethod
    def made(
        cls,
        generator: ImageGenerator,
        start: Float[Tensor, "1 num_ws w_dim"],
        settings: DragSettings,
        mask: Float[Tensor, "1 1 h w"] | None = None,
        tracker: Tracker | None = None,
    ) -> Engine:
        """mask: 1 where the picture may change. Raises InputError for what cannot be dragged."""
        if settings.layers > generator.num_ws:
            raise InputError(
                f"--layers must be at most {generator.num_ws} for {generator.name}. "
                f"Got {settings.layers}."
            )
        start = start.to(generator.device)
        resolutions = feature_resolutions(generator, settings)
        size = generator.picture_size
        grid, followed = (Grid(size, generator.feature_size(r)) for r in resolutions)
        return cls(
            generator.held(start, settings.layers),
            start,
            grid,
            resolutions[0],
            settings,
            None if mask is None else fixed_part(mask, grid, start),
            tracker or feature_tracker(settings),
            None if resolutions[0] == resolutions[1] else (resolutions[1], followed),
            LatentPrior.of(generator) if settings.principal or settings.prior_weight else None,
        )

    @property
    def scale(self) -> float:
        """Pixels of this picture in a pixel of a 512-pixel one."""
        return max(self.grid.picture) / PUBLISHED_SIZE

    @property
    def search(self) -> int:
        """The tracking radius, in pixels of this picture."""
        return max(1, round(self.settings.r2 * self.scale))

    @property
    def disc(self) -> float:
        """The radius of supervision, likewise."""
        return max(1, round(self.settings.r1 * self.scale))

    def begin(self, points: Float[Tensor, "n 2"], targets: Float[Tensor, "n 2"]) -> State:
        """The state before the first step."""
        # In W all moving layers share one row; in W+ each layer has its own. Upper layers hold
        # colours and textures and stay fixed.
        moving_ws = self.start[
            :, : 1 if self.settings.space == "w" else self.settings.layers
        ].clone()
        points, targets = points.to(moving_ws), targets.to(moving_ws)
        return State(moving_ws, moving_ws, moving_ws, points, targets).fresh_moments()

    def layers(self, moving_ws: Float[Tensor, "1 rows w_dim"]) -> Float[Tensor, "1 moving w_dim"]:
        """The moving layers of the latent: in W, one row for all of them."""
        return moving_ws.expand(-1, self.settings.layers, -1)

    def latent(self, moving_ws: Float[Tensor, "1 rows w_dim"]) -> Float[Tensor, "1 num_ws w_dim"]:
        """The whole latent."""
        return self.held.ws(self.layers(moving_ws))

    def step(self, state: State, update: bool = True) -> tuple[Findings, State]:
        """Look, track, and (unless all handles arrived, or not `update`) move the latent once."""
        with torch.enable_grad():
            moving_ws = state.moving_ws.detach().requires_grad_()
            # Features with gradients, computed once: tracking and supervision read the same ones.
            state, seen, search = self._look(state, moving_ws)
            anchor = cast(Anchor, state.anchor)

            def picture() -> Tensor:
                return self.held.picture(self.layers(moving_ws).detach())

            followed = self._followed(moving_ws, state.places, search)
            look = seen.detached() if followed is None else followed
            # Tracking compares with the features at the anchor, not with those of the last step:
            # errors then do not add up over steps.
            sight = Sight(look, anchor.references(), picture, state.memory)
            tracks = self.tracker.track(sight, state.points, search)
            left = (state.targets - tracks.points).norm(dim=1)
            # Kept on the device: reading it here would make the host wait.
            reached = (left <= self.stop_distance(len(left))).all()
            state = replace(state, points=tracks.points, memory=tracks.memory)
            total, terms = self._loss(state, moving_ws, seen)
            slope = torch.zeros_like(moving_ws)
            # In the dead zone of all handles the loss has no gradient.
            if update and total.requires_grad:
                (slope,) = torch.autograd.grad(total, moving_ws)
        # All numbers of the step go to the host in one transfer.
        flags = (reached, tracks.unsure.any(), torch.isfinite(slope).all())
        losses = (terms["mask"], terms["latent"], total)
        found, finite = findings(moving_ws, state.points, left, terms["motion"], losses, flags)
        state = replace(state, doubtful=found.doubtful, told=(state.points, found.points))
        if found.reached or not update:
            return found, state
        if not finite:
            raise ModelError(
                f"The latent's gradient is not finite at step {state.step}. Try --dtype float32 "
                "or a smaller --learning-rate."
            )
        return found, self._adam(state, slope)

    def anchored(self, state: State) -> State:
        """The same with the features of its anchor computed, where they are not."""
        anchor = state.anchor
        if anchor is None or anchor.look is not None:
            return state
        with torch.no_grad():
            seen = self._features(anchor.moving_ws, anchor.points.cpu(), self._reach(self.search))
        followed = self._followed(anchor.moving_ws, anchor.points.cpu(), self.search)
        return replace(state, anchor=replace(anchor, look=seen, tracked=followed))

    def stop_distance(self, handles: int) -> float:
        """How near, in pixels, every handle has to be."""
        near = self.settings.stop_distance
        # As published: 1 pixel for up to five points, 2 for more.
        if near == 0:
            return 1.0 if handles <= 5 else 2.0
        return max(near * self.scale, near)

    def _look(self, state: State, moving_ws: Tensor) -> tuple[State, FeatureView, int]:
        """Features around the handles, the radius to search, and an anchor if there was none."""
        # A handle that was lost in the last step may have moved further than one step can.
        search = self.search * (WIDER if state.doubtful else 1)
        seen = self._features(moving_ws, state.places, self._reach(search))
        # The first step, or points moved by the user: the picture as it is now becomes the
        # reference.
        if state.anchor is None:
            followed = self._followed(moving_ws, state.places, search)
            anchor = Anchor(moving_ws.detach().clone(), state.points, seen.detached(), followed)
            return replace(state, anchor=anchor, memory=None), seen, search
        return self.anchored(state), seen, search

    def _features(self, moving_ws: Tensor, places: Tensor, radius: int) -> FeatureView:
        """places: the points, on the host."""
        box = None if self.fixed is None else self.fixed.box
        layers = self.layers(moving_ws)
        return look(self.held, layers, self.resolution, self.grid, places, radius, box)

    @torch.no_grad()
    def _followed(self, moving_ws: Tensor, places: Tensor, radius: int) -> FeatureView | None:
        """The features that are tracked, where they are not those of supervision."""
        if self.tracking is None:
            return None
        return look(self.held, self.layers(moving_ws), *self.tracking, places, self._reach(radius))

    def _reach(self, search: int) -> int:
        """How far from a handle a step may look: tracked, then the disc, then a step."""
        return search + math.ceil(self.disc) + 3

    def _loss(self, state: State, moving_ws: Tensor, seen: FeatureView) -> tuple[Tensor, Terms]:
        anchor = cast(Anchor, state.anchor)
        supervision = supervision_of(self.settings, self.disc, self.fixed is not None)
        motion = supervision.terms(seen, state.points, state.targets, anchor.seen, anchor.points)
        mask = latent = motion.new_zeros(())
        # Handles in the dead zone have the term NaN, and no gradient.
        total = motion.nansum()
        # The mask term of eq. 1: features outside the movable region stay those of the first
        # picture.
        if self.fixed is not None and seen.box is not None:
            box = cast(Tensor, anchor.seen.box)
            how = cast(Any, self.settings.reduction)
            mask = mask_term(seen.box, box, self.fixed, how)
            total = total + self.settings.mask_weight * mask
        if self.settings.latent_weight:
            latent = (self.latent(moving_ws) - self.start).abs().mean()
            total = total + self.settings.latent_weight * latent
        if self.settings.prior_weight and self.prior is not None:
            change = self.layers(moving_ws) - self.start[:, : self.settings.layers]
            total = total + self.settings.prior_weight * self.prior.distance(change)
        return total, {"motion": motion, "mask": mask, "latent": latent}

    def _adam(self, state: State, slope: Tensor) -> State:
        """Kingma & Ba 2015, in the order of operations of torch.optim.Adam.

        With `principal` in coordinates along the principal directions of W, so that directions in
        which latents hardly vary hardly move.
        """
        prior = self.prior if self.settings.principal else None
        slope = slope if prior is None else prior.inwards(slope)
        count = state.count + 1
        # Written out instead of torch.optim.Adam, because a drag is a value: undo restores the
        # moments, too.
        first = state.first.lerp(slope, 1 - BETAS[0])
        second = (state.second * BETAS[1]).addcmul_(slope, slope, value=1 - BETAS[1])
        scale = math.sqrt(1 - BETAS[1] ** count)
        below = (second.sqrt() / scale).add_(EPSILON)
        size = self.settings.learning_rate / (1 - BETAS[0] ** count)
        if prior is None:
            moving_ws = state.moving_ws.detach().addcdiv(first, below, value=-size)
        else:
            moving_ws = state.moving_ws.detach() - size * prior.outwards(first / below)
        step = state.step + 1
        return replace(
            state, moving_ws=moving_ws, first=first, second=second, count=count, step=step
        )
