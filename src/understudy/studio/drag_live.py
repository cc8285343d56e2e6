"""A drag that is watched: a timeline of moments, one step at a time, any moment to go back to.

Every moment keeps what its picture shows and what the next step goes on from. These differ because
a step moves the latent after it has looked at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy.drag.film import marked, write_film
from understudy.drag.points import Pair
from understudy.drag.session import DragSession, DragStep
from understudy.errors import InputError
from understudy.generators.interface import ImageGenerator
from understudy.pictures.encode import frame_jpeg
from understudy.pictures.tensors import to_pixels
from understudy.settings.drag import DragSettings

FRAMES_KEPT = 64 * 2**20  # bytes of encoded frames that are kept for going back
FILM_FRAMES = 120  # pictures of a film at most; longer drags skip some
ENDS = {
    "reached": "All points have arrived.",
    "cap": "The maximum number of steps is reached. Run again to continue.",
    "stalled": "The points no longer move closer to their targets. Move a target, "
    "paint a larger area that may change, or use more layers.",
}


@dataclass(frozen=True, eq=False)
class Moment:
    """A place in the timeline.

    kind: "begin", "points", "mask" or "step". shown: the session as its picture shows it. onward:
    where the next step begins. start: where the step that saw this moment began, None before one
    did; before: the same of the moment before. left: pixels to go of each point. end: why a run
    ended here, or "".
    """

    kind: str
    shown: DragSession
    onward: DragSession
    start: DragSession | None = None
    before: DragSession | None = None
    left: tuple[float, ...] = ()
    end: str = ""
    doubtful: bool = False
    painted: str = ""


class LiveDrag:
    """One drag of a studio session. Only the worker process has these.

    note: why steps are not replayed from a CUDA graph, or "".
    """

    def __init__(self, generator: ImageGenerator, session: DragSession) -> None:
        self.generator = generator
        self.moments: list[Moment] = [
            Moment("begin", shown, shown) for shown in (*_kept(session), _light(session))
        ]
        self.at = len(self.moments) - 1
        self.settings = session.settings
        self.running, self.note = False, ""
        self._steps: Iterator[DragStep] | None = None
        self._begun = session
        self._frames: dict[int, bytes] = {}

    @classmethod
    def begin(
        cls, generator: ImageGenerator, ws: Tensor, settings: DragSettings | None = None
    ) -> LiveDrag:
        """A drag of a latent "1 num_ws w_dim" without points yet."""
        return cls(generator, DragSession.begin(generator, ws, settings=settings))

    @property
    def moment(self) -> Moment:
        """Where the drag stands."""
        return self.moments[self.at]

    def points(self, pairs: list[Pair]) -> None:
        """Other handles and targets on the picture as it is now. Raises InputError."""
        self._push("points", self.moment.shown.with_pairs(pairs))

    def mask(self, mask: Tensor | None, painted: str = "") -> None:
        """What may change, "1 1 h w", 1 where it may; None: everything. Raises InputError."""
        shown = self.moment.shown
        # An engine checks the mask; the session is only kept if it would run.
        DragSession.begin(self.generator, shown.start, mask=mask, settings=self.settings)
        state = replace(shown.state, anchor=None)
        self._push("mask", replace(shown, mask=mask, state=state), painted)

    def configure(self, given: dict[str, Any]) -> None:
        """Other settings from here on; another latent space begins a new drag from this picture."""
        self._pause()
        settings = DragSettings.filled(given, self.generator.name)
        now = self.moment.shown
        if (settings.space, settings.layers) == (now.settings.space, now.settings.layers):
            shown = now.with_settings(settings)
        else:
            shown = DragSession.begin(
                self.generator, now.latent, now.pairs, mask=now.mask, settings=settings
            )
        self.settings = settings
        self._push("points", shown)

    def goto(self, place: int) -> None:
        """Another moment of the timeline; later ones stay until something new is done."""
        self._pause()
        if not 0 <= place < len(self.moments):
            raise InputError(f"The timeline has moments 0 to {len(self.moments) - 1}. Got {place}.")
        self.at = place

    def run(self) -> None:
        """Let `advance` make steps. Raises InputError where there are no points."""
        if not self.moment.shown.pairs:
            raise InputError("Set a point and its target first: click the picture twice.")
        self.running = True

    def pause(self) -> None:
        """Make no more steps; a run goes on where it stopped."""
        self.running = False

    def advance(self) -> None:
        """One step, as a new moment."""
        self.run()
        moment = self.moment
        fresh = moment.kind != "step" or bool(moment.end)
        if self._steps is None:
            settings = self.settings
            if not fresh:  # the same drag goes on: its optimiser does, too
                settings = replace(settings, reset_optimiser=False)
            begun = replace(moment.onward, settings=settings, past=(), future=(), stop="stopped")
            self._steps = begun.run(self.generator, draw_every=1)
            if settings.reset_optimiser:
                begun = replace(begun, state=begun.state.fresh_moments())
            self._begun = begun
        self._take(next(self._steps), fresh)

    def _take(self, step: DragStep, fresh: bool) -> None:
        self.note = step.note
        onward = replace(_light(step.session), settings=self.settings)
        rows = onward.state.moving_ws.shape[1]
        number = onward.state.step - (step.stop is None)
        state = replace(onward.state, moving_ws=step.latent[:, :rows].clone(), step=number)
        shown = replace(onward, state=state)
        end = step.stop or ""
        start = self._begun if step.index == 0 else self.moment.onward
        painted = self.moment.painted
        found = Moment("step", shown, onward, start, None, step.left, end, step.doubtful, painted)
        if step.index == 0 and fresh and not end:  # the same picture again, now looked at
            self.moments[self.at] = replace(found, kind=self.moment.kind)
        else:
            self._append(replace(found, before=self.moment.start))
        if step.picture is not None:
            self._frames[self.at] = frame_jpeg(to_pixels(step.picture))
        if end:
            self._pause()

    def frame(self) -> bytes:
        """The picture of the moment as a JPEG file, the same bytes at every visit."""
        if self.at not in self._frames:
            self._frames[self.at] = frame_jpeg(self._pixels(self.moment.shown))
        kept = self._frames[self.at]
        while sum(map(len, self._frames.values())) > FRAMES_KEPT and len(self._frames) > 1:
            self._frames.pop(next(key for key in self._frames if key != self.at))
        return kept

    def facts(self) -> dict[str, Any]:
        """The moment as JSON data, to go with its frame."""
        moment = self.moment
        pairs = moment.shown.pairs
        return {
            "moment": self.at,
            "moments": len(self.moments),
            "kind": moment.kind,
            "step": moment.shown.state.step,
            "points": [list(point) for point, _ in pairs],
            "targets": [list(target) for _, target in pairs],
            "left": [round(value, 2) for value in moment.left],
            "running": self.running,
            "end": moment.end,
            "why": ENDS.get(moment.end, ""),
            "doubtful": moment.doubtful,
            "masked": moment.shown.mask is not None,
            "mask": moment.painted,
        }

    def film(self, path: Path, marks: bool) -> None:
        """Write the pictures up to this moment as a film."""
        shown = [one for one in self.moments[: self.at + 1] if one.kind in ("begin", "step")]
        every = -(-len(shown) // FILM_FRAMES)
        chosen = [*shown[:-1][::every], *shown[-1:]]
        write_film(path, (self._marked(one.shown, marks) for one in chosen))

    def save(self, path: Path) -> None:
        """Write the session so that a drag job of one step ends with this moment's picture."""
        moment = self.moment
        session = moment.shown if moment.before is None else moment.before
        settings = replace(self.settings, steps=1, reset_optimiser=False)
        replace(session, settings=settings, past=(), future=()).save(path)

    def keep(self, path: Path) -> None:
        """Write the session as it is, to open it after a restart of the server."""
        replace(self.moment.shown, past=(), future=()).save(path)

    def _push(self, kind: str, session: DragSession, painted: str | None = None) -> None:
        self._pause()
        shown = replace(_light(session), settings=self.settings)
        painted = self.moment.painted if painted is None else painted
        self._append(Moment(kind, shown, shown, painted=painted))

    def _append(self, moment: Moment) -> None:
        del self.moments[self.at + 1 :]
        for place in [place for place in self._frames if place > self.at]:
            del self._frames[place]
        same = moment.kind != "step" and self.at in self._frames
        self.moments.append(moment)
        self.at += 1
        if same:  # points and masks leave the picture as it is
            self._frames[self.at] = self._frames[self.at - 1]

    def _pause(self) -> None:
        """Stop, and forget the engine: the next step starts again from the moment."""
        self.running = False
        close = getattr(self._steps, "close", None)
        if close is not None:
            close()
        self._steps = None

    def _pixels(self, session: DragSession) -> Any:
        with torch.no_grad():
            return to_pixels(self.generator.pictures(session.latent.to(self.generator.device)))

    def _marked(self, session: DragSession, marks: bool) -> Any:
        pixels = self._pixels(session)
        if not marks or not session.pairs:
            return pixels
        points, targets = zip(*session.pairs, strict=True)
        return marked(pixels, points, targets, session.mask)


def _light(session: DragSession) -> DragSession:
    """The session without what can be computed again."""
    return replace(session, state=session.state.light(), past=(), future=(), kept=session.kept)


def _kept(session: DragSession) -> list[DragSession]:
    """The kept moments of a session that was saved, oldest first."""
    return [
        replace(
            session, state=replace(session.state.light(), moving_ws=kept.moving_ws, step=kept.step)
        )
        for kept in session.kept
        if kept.step < session.state.step
    ]
