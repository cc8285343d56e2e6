"""One step of a drag: features, tracking, supervision, Adam. Values in, values out.

The order is that of the authors' program: handles are tracked first, on the same features that
supervision then pulls at their new places, so that a step costs one walk through the network.
A step is a function of tensors (`step_tensors`); on a GPU it is recorded and replayed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.cuda_graphs.capture import Capturer, CUDACapture
from understudy.drag.adam import adam
from understudy.drag.prior import LatentPrior
from understudy.drag.recorded import Recordings
from understudy.drag.region import FeatureView, Grid, look, look_whole, prefers_whole_map
from understudy.drag.rules import feature_resolutions, feature_tracker, fixed_part, supervision_of
from understudy.drag.state import Anchor, Findings, State, findings, packed
from understudy.drag.step import StepInputs, StepOutputs
from understudy.drag.supervision import MaskedBox, mask_term
from understudy.drag.tracking import FeatureTracker, Sight, Tracker
from understudy.errors import InputError, ModelError
from understudy.generators.interface import HeldLatent, ImageGenerator
from understudy.settings.drag import DragSettings

PUBLISHED_SIZE = 512  # pixels; what lengths in the settings refer to
WIDER = 3  # how much wider a search follows a doubtful one


@dataclass(frozen=True, eq=False)
class Engine:
    """A generator, a latent and settings, ready to step.

    start: the whole latent the drag began from. fixed: what may not change, with its cells.
    grid, resolution: of supervision's features; tracking: those of tracking, where they differ.
    prior: how latents of W vary, where settings ask for it. whole: compute the whole map instead
    of windows around the handles. capturer: records steps to replay them; None: each runs as it is.
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
    whole: bool = False
    capturer: Capturer | None = None
    recordings: Recordings | None = field(init=False)

    def __post_init__(self) -> None:
        # Of this engine alone: a recording holds its mask, settings and weights. A tracker that
        # draws pictures or keeps something between steps is not recorded, nor are windows, whose
        # places the host must know.
        able = self.whole and isinstance(self.tracker, FeatureTracker)
        made = Recordings(self.capturer) if self.capturer and able else None
        object.__setattr__(self, "recordings", made)

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
        whole = prefers_whole_map(start.device)
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
            whole=whole,
            capturer=CUDACapture(shared=False) if whole else None,
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
        state = self.anchored(state)
        # A handle that was lost in the last step may have moved further than one step can.
        search = self.search * (WIDER if state.doubtful else 1)
        inputs = StepInputs.of(state, self.settings.learning_rate)
        if self.recordings is None or state.anchor is None:
            out = self.step_tensors(inputs, search, None if self.whole else state.places, update)
        else:
            out = self.recordings.run(search, partial(self.step_tensors, search=search), inputs)
        # All numbers of the step go to the host in one transfer.
        found, finite = findings(state.moving_ws, out.numbers.cpu())
        state = replace(
            state, points=out.points, told=(out.points, found.points), memory=out.memory,
            anchor=state.anchor or out.anchor, doubtful=found.doubtful,
        )  # fmt: skip
        if found.reached or not update:
            return found, state
        if not finite:
            raise ModelError(
                f"The latent's gradient is not finite at step {state.step}. Try --dtype float32 "
                "or a smaller --learning-rate."
            )
        moved = {"moving_ws": out.moving_ws, "first": out.first, "second": out.second}
        return found, replace(state, **moved, count=state.count + 1, step=state.step + 1)

    @torch.enable_grad()
    def step_tensors(
        self, inputs: StepInputs, search: int, places: Tensor | None = None, update: bool = True
    ) -> StepOutputs:
        """A step as a function of tensors: with the whole map, the host reads none of them.

        search: the tracking radius. places: the points on the host, where windows are computed.
        """
        moving_ws = inputs.moving_ws.detach().requires_grad_()
        places = inputs.points if places is None else places
        # Features with gradients, computed once: tracking and supervision read the same ones.
        seen = self._features(moving_ws, places, self._reach(search))
        followed = self._followed(moving_ws, places, search)
        anchor, memory, made = inputs.anchor, inputs.memory, None
        # The first step, or points moved by the user: the picture as it is now becomes the
        # reference.
        if anchor is None:
            anchor = Anchor(inputs.moving_ws, inputs.points)
            anchor = made = anchor.with_features(seen.detached(), followed)
            memory = None

        def picture() -> Tensor:
            return self.held.picture(self.layers(moving_ws).detach())

        # Tracking compares with the features at the anchor, not with those of the last step: errors
        # then do not add up over steps.
        followed = seen.detached() if followed is None else followed
        sight = Sight(followed, cast(Tensor, anchor.references), picture, memory)
        tracks = self.tracker.track(sight, inputs.points, search)
        left = (inputs.targets - tracks.points).norm(dim=1)
        reached = (left <= self.stop_distance(len(left))).all()
        pulled = (tracks.points, inputs.targets)
        total, motion, losses = self._loss(pulled, anchor, moving_ws, seen)
        slope = torch.zeros_like(moving_ws)
        # In the dead zone of all handles the loss has no gradient.
        if update and total.requires_grad:
            (slope,) = torch.autograd.grad(total, moving_ws)
        flags = (reached, tracks.unsure.any(), torch.isfinite(slope).all())
        moments, prior = (inputs.first, inputs.second), self.prior
        moved = adam(
            moving_ws.detach(), moments, slope, inputs.rate,
            prior if self.settings.principal else None,
        )  # fmt: skip
        numbers = packed(tracks.points, left, motion, (*losses, total), flags)
        return StepOutputs(numbers, tracks.points, *moved, anchor=made, memory=tracks.memory)

    def anchored(self, state: State) -> State:
        """The same with the features of its anchor computed, where they are not."""
        anchor = state.anchor
        if anchor is None or anchor.look is not None:
            return state
        places = anchor.points if self.whole else anchor.points.cpu()
        with torch.no_grad():
            seen = self._features(anchor.moving_ws, places, self._reach(self.search))
        followed = self._followed(anchor.moving_ws, places, self.search)
        return replace(state, anchor=anchor.with_features(seen, followed))

    def stop_distance(self, handles: int) -> float:
        """How near, in pixels, every handle has to be."""
        near = self.settings.stop_distance
        # As published: 1 pixel for up to five points, 2 for more.
        if near == 0:
            return 1.0 if handles <= 5 else 2.0
        return max(near * self.scale, near)

    def _features(self, moving_ws: Tensor, places: Tensor, radius: int) -> FeatureView:
        """places: the points; on the host where windows are computed."""
        box = None if self.fixed is None else self.fixed.box
        layers, looked = self.layers(moving_ws), look_whole if self.whole else look
        return looked(self.held, layers, self.resolution, self.grid, places, radius, box)

    @torch.no_grad()
    def _followed(self, moving_ws: Tensor, places: Tensor, radius: int) -> FeatureView | None:
        """The features that are tracked, where they are not those of supervision."""
        if self.tracking is None:
            return None
        looked = look_whole if self.whole else look
        layers, reach = self.layers(moving_ws), self._reach(radius)
        return looked(self.held, layers, *self.tracking, places, reach)

    def _reach(self, search: int) -> int:
        """How far from a handle a step may look: tracked, then the disc, then a step."""
        return search + math.ceil(self.disc) + 3

    def _loss(
        self, pulled: tuple[Tensor, Tensor], anchor: Anchor, moving_ws: Tensor, seen: FeatureView
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """The loss, the motion term of each handle, and the mask and latent terms.

        pulled: handles and their targets.
        """
        supervision = supervision_of(self.settings, self.disc, self.fixed is not None)
        motion = supervision.terms(seen, *pulled, anchor.seen, anchor.points)
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
        return total, motion, (mask, latent)
