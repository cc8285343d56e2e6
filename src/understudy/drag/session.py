"""`DragSession`: a drag as a value that runs, can be undone, and is saved.

`DragSession` never changes: adding points, undoing and every step of a run give a new one. Points
are (x, y) in pixels of the picture, whole numbers being pixel centres; a mask is 1 where the
picture may change.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.drag.engine import Engine
from understudy.drag.files import Snapshot, load_session, save_session
from understudy.drag.points import Pair, Point, as_xy, checked_pairs, tensor, tensors
from understudy.drag.rules import check_generator, check_latent
from understudy.drag.state import Findings, State
from understudy.drag.tracking import Tracker
from understudy.errors import InputError
from understudy.generators.interface import ImageGenerator
from understudy.settings.drag import DragSettings

Stop = Literal["stopped", "reached", "cap", "stalled"]
LEAST_PROGRESS = 0.5  # pixels of a 512-pixel picture that the way left must shrink by


@dataclass(frozen=True, eq=False)
class DragSession:
    """All there is to know of a drag.

    model, fingerprint: the generator's. start: the latent it began from. state: where it stands.
    kept: a snapshot every N steps, for films. past, future: what undo and redo lead to.
    stop: why the last run ended; "stopped" while it has not by itself.
    """

    model: str
    fingerprint: str
    picture: tuple[int, int]
    settings: DragSettings
    start: Float[Tensor, "1 num_ws w_dim"]
    state: State
    mask: Float[Tensor, "1 1 h w"] | None = None
    kept: tuple[Snapshot, ...] = ()
    past: tuple[State, ...] = field(default=(), repr=False)
    future: tuple[State, ...] = field(default=(), repr=False)
    stop: Stop = "stopped"

    @classmethod
    def begin(
        cls,
        generator: ImageGenerator,
        latent: Float[Tensor, "1 num_ws w_dim"],
        pairs: Iterable[Pair] = (),
        *,
        mask: Float[Tensor, "1 1 h w"] | None = None,
        settings: DragSettings | None = None,
    ) -> DragSession:
        """A drag of `latent`, its handles at the first of each pair, targets at the second.

        Raises InputError for a latent of another generator or with numbers that are not finite,
        for points outside the picture or at odds with each other, and for a mask that does not fit.
        """
        settings = settings or DragSettings.filled({}, generator.name)
        check_latent(generator, latent)
        engine = Engine.made(generator, latent, settings, mask)
        points, targets = tensors(checked_pairs(pairs, generator.picture_size))
        return cls(
            model=generator.name,
            fingerprint=generator.fingerprint,
            picture=generator.picture_size,
            settings=settings,
            start=engine.start,
            state=engine.begin(points, targets),
            mask=mask,
        )

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Handles where they are now, with their targets."""
        return tuple(zip(as_xy(self.state.points), as_xy(self.state.targets), strict=True))

    @property
    def latent(self) -> Float[Tensor, "1 num_ws w_dim"]:
        """The whole latent as it stands."""
        return self.latent_of(self.state.moving_ws)

    def latent_of(
        self, moving_ws: Float[Tensor, "1 rows w_dim"]
    ) -> Float[Tensor, "1 num_ws w_dim"]:
        """The whole latent of a kept moment."""
        layers = self.settings.layers
        moved = moving_ws.to(self.start).expand(-1, layers, -1)
        return torch.cat([moved, self.start[:, layers:]], dim=1)

    def with_pairs(self, pairs: Iterable[Pair]) -> DragSession:
        """Other handles and targets; the picture as it is now is what they refer to."""
        points, targets = tensors(checked_pairs(pairs, self.picture))
        state = replace(
            self.state,
            points=points.to(self.start),
            targets=targets.to(self.start),
            # The new handles are defined on the picture of now, so tracking needs a new reference.
            anchor=None,
            doubtful=False,
        )
        return self._moved(state)

    def with_settings(self, settings: DragSettings) -> DragSession:
        """The same drag under other settings; space and layers stay what they were."""
        same = (self.settings.space, self.settings.layers)
        if (settings.space, settings.layers) != same:
            raise InputError("--space and --layers of a drag cannot change. Start a new drag.")
        return replace(self, settings=settings)

    def undo(self) -> DragSession:
        """Before the last run or change of points. InputError where there is nothing before."""
        if not self.past:
            raise InputError("There is nothing to undo.")
        *past, state = self.past
        future = (self.state, *self.future)
        return replace(self, state=state, past=tuple(past), future=future, stop="stopped")

    def redo(self) -> DragSession:
        """The reverse of `undo`. InputError where nothing was undone."""
        if not self.future:
            raise InputError("There is nothing to redo.")
        state, *future = self.future
        past = (*self.past, self.state)
        return replace(self, state=state, past=past, future=tuple(future), stop="stopped")

    def at(self, step: int) -> DragSession:
        """Back at a kept moment, to go on from there. InputError for a step that was not kept."""
        for kept in self.kept:
            if kept.step == step and len(kept.points) == len(self.state.points):
                points = tensor(kept.points).to(self.start)
                state = replace(
                    self.state, moving_ws=kept.moving_ws, points=points, step=step, memory=None
                )
                return self._moved(state.fresh_moments())
        known = ", ".join(str(kept.step) for kept in self.kept) or "none"
        raise InputError(f"Step {step} was not saved. Saved steps: {known}.")

    def applied(
        self, latent: Float[Tensor, "1 num_ws w_dim"], strength: float = 1.0
    ) -> Float[Tensor, "1 num_ws w_dim"]:
        """The same edit on another latent: the change of this one, `strength` times, added."""
        return latent + strength * (self.latent - self.start).to(latent)

    def run(
        self,
        generator: ImageGenerator,
        *,
        draw_every: int = 0,
        tracker: Tracker | None = None,
    ) -> Iterator[DragStep]:
        """Drag until the handles arrive, the steps are used up, or nothing moves any more.

        Every step carries the session as it stands; closing the generator stops the drag. A picture
        is drawn every `draw_every` steps and at the end (0: never).
        Raises InputError for another generator than the session's, or without any points.
        """
        check_generator(generator, self.model, self.fingerprint)
        if not len(self.state.points):
            raise InputError(
                "A drag needs at least one handle and target, like 64,80>64,95. Got none."
            )
        engine = Engine.made(generator, self.start, self.settings, self.mask, tracker)
        here = replace(self, start=engine.start, state=self.state.to(generator.device))
        return _run(here, engine, draw_every)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one safetensors file, whole or not at all. Raises OutputError."""
        return save_session(path, {one.name: getattr(self, one.name) for one in fields(self)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DragSession:
        """Read what `save` wrote. Raises InputError, naming the file, for anything else."""
        return cls(**load_session(path))

    def _moved(self, state: State) -> DragSession:
        """Another state, the one before kept for undo."""
        past = (*self.past, self.state.light())
        return replace(self, state=state, past=past, future=(), stop="stopped")


@dataclass(frozen=True, eq=False)
class DragStep:
    """One look at a drag: points, latent and picture belong together, before the next move.

    index counts from 0 to at most total - 1. points, targets: (x, y) in pixels; left: pixels to go.
    motion: the term of each handle, NaN where it is not pulled. loss: all terms, weighted.
    stop: why the drag ends here, or None. session: what to go on from, or save.
    note: why steps are not replayed as CUDA graphs; "" where they are, or need not be.
    """

    index: int
    total: int
    points: tuple[Point, ...]
    targets: tuple[Point, ...]
    left: tuple[float, ...]
    motion: tuple[float, ...]
    loss: float
    doubtful: bool
    stop: Stop | None
    latent: Float[Tensor, "1 num_ws w_dim"]
    session: DragSession = field(repr=False)
    picture: Float[Tensor, "1 3 h w"] | None = field(default=None, repr=False)
    note: str = ""


def drag_steps(
    generator: ImageGenerator,
    latent: Float[Tensor, "1 num_ws w_dim"],
    pairs: Iterable[Pair],
    *,
    mask: Float[Tensor, "1 1 h w"] | None = None,
    settings: DragSettings | None = None,
    draw_every: int = 0,
    tracker: Tracker | None = None,
) -> Iterator[DragStep]:
    """Drag handles to targets (DragGAN, Pan et al. 2023, arXiv:2305.10973).

    See `DragSession.begin` and `DragSession.run` for arguments and errors.
    """
    session = DragSession.begin(generator, latent, pairs, mask=mask, settings=settings)
    return session.run(generator, draw_every=draw_every, tracker=tracker)


def drag(
    generator: ImageGenerator,
    latent: Float[Tensor, "1 num_ws w_dim"],
    pairs: Iterable[Pair],
    *,
    mask: Float[Tensor, "1 1 h w"] | None = None,
    settings: DragSettings | None = None,
) -> DragSession:
    """Drag to the end. See `drag_steps`."""
    *_, last = drag_steps(generator, latent, pairs, mask=mask, settings=settings)
    return last.session


def _run(session: DragSession, engine: Engine, draw_every: int) -> Iterator[DragStep]:
    settings = session.settings
    # Moments of the last run would push towards its targets.
    state = session.state.fresh_moments() if settings.reset_optimiser else session.state
    session = session._moved(state)  # pyright: ignore[reportPrivateUsage]
    kept = tuple(one for one in session.kept if one.step < state.step)
    ways: list[float] = []
    for index in range(settings.steps + 1):
        number, last = state.step, index == settings.steps
        found, state = engine.step(state, update=not last)
        ways.append(float(found.left.mean()))
        # Judged before the latent moves again: a result shows the points that were measured.
        stop = _stop(ways, found, last, settings.stall_steps, LEAST_PROGRESS * engine.scale)
        points = as_xy(found.points)
        if stop is not None or index % settings.keep_every == 0:
            kept = (*kept, Snapshot(number, found.moving_ws, points))
        session = replace(session, state=state, kept=kept, stop=stop or "stopped")
        if stop is not None:  # the latent that was looked at, not the one after it
            session = replace(session, state=replace(state, moving_ws=found.moving_ws, step=number))
        drawn = draw_every and (stop is not None or index % draw_every == 0)
        yield DragStep(
            index=index,
            total=settings.steps + 1,
            points=points,
            targets=as_xy(state.targets),
            left=tuple(found.left.tolist()),
            motion=tuple(found.motion.tolist()),
            loss=found.total,
            doubtful=found.doubtful,
            stop=stop,
            latent=engine.latent(found.moving_ws),
            session=session,
            picture=engine.held.picture(engine.layers(found.moving_ws)) if drawn else None,
            note="" if engine.recordings is None else engine.recordings.failure,
        )
        if stop is not None:
            return


def _stop(
    ways: list[float], found: Findings, last: bool, patience: int, least: float
) -> Stop | None:
    if found.reached:
        return "reached"
    if last:
        return "cap"
    # Stalled: the best of the last steps is no better than the best before them, by a visible
    # amount.
    if patience and len(ways) > patience and min(ways[-patience:]) > min(ways[:-patience]) - least:
        return "stalled"
    return None
