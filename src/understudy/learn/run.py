"""A training run from the first step to the last, with previews and checkpoints.

Whatever ends it early (the caller closes it, memory runs out, the loss breaks down) leaves a
checkpoint of the last whole step, if the run has a folder.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from understudy.concept import Concept
from understudy.errors import UnderstudyError
from understudy.learn.checkpoint import Run, memory_advice, out_of_memory
from understudy.learn.log import Journal
from understudy.learn.preview import Look, Viewer, best
from understudy.learn.trainable import holding
from understudy.learn.training import Trainer, TrainStep
from understudy.settings import LearnSettings


@dataclass(frozen=True)
class LearnStep:
    """Where learning stands.

    phase: "prior" while the model samples its class, "learn" while it trains, "done" at the end.
    index counts from 0 to total - 1 within the phase; there is no "prior" phase when all class
    samples were in the cache, or no prior is wanted; a resumed run's "learn" begins where it
    stopped. Losses: mean squared errors, NaN outside "learn"; prior_loss NaN without prior
    preservation. saved: the checkpoint of this step, look: what was seen after it, if any; at the
    end, with looks, `look` is the best of them. concept: there when the phase is "done", the model
    being as it was before by then. warnings: what speaks against the identifier.
    """

    phase: Literal["prior", "learn", "done"]
    index: int
    total: int
    loss: float = math.nan
    photo_loss: float = math.nan
    prior_loss: float = math.nan
    saved: Path | None = None
    look: Look | None = None
    concept: Concept | None = None
    warnings: tuple[str, ...] = ()


@dataclass
class Course:
    """A trainer on its way. blank: the concept without its tensors. folder: of the run, if it is to
    be kept; facts: what makes it this run."""

    trainer: Trainer
    viewer: Viewer
    blank: Concept
    settings: LearnSettings
    folder: Path | None
    facts: Mapping[str, Any]
    looks: list[Look] = field(default_factory=list[Look])
    journal: Journal | None = None

    @property
    def run(self) -> Run | None:
        """The folder's checkpoints; None for processes that do not write."""
        if self.folder is None or not self.trainer.team.leads:
            return None
        return Run(self.folder, self.settings.keep, self.facts)

    def concept(self) -> Concept:
        """What is learnt by now; the running average where one is kept."""
        with holding(self.trainer.pupil.parameters, self.trainer.averages):
            tensors = self.trainer.pupil.tensors()
        return replace(self.blank, tensors=tensors)

    def save(self) -> Path | None:
        """Keep a checkpoint; None where nothing is to be kept, or no step was taken."""
        if self.run is None or not self.trainer.done:
            return None
        chosen = best(self.looks).step if self.looks else 0
        state = self.trainer.state()
        return self.run.save(self.trainer.done, self.concept(), state, protect=chosen)

    def look(self) -> Look | None:
        """Look and write down what was seen. All processes wait for the first."""
        found: Look | None = None
        if self.trainer.team.leads:
            found = self.viewer.look(self.trainer)
            self.looks.append(found)
            if self.journal:
                self.journal.look(found, self.looks[0])
        self.trainer.team.wait()
        return found


def course_steps(course: Course, *, resume: bool) -> Generator[LearnStep, None, Concept]:
    """Take all steps, yielding after each; return the concept. The folder is claimed already."""
    trainer, settings, total = course.trainer, course.settings, course.settings.steps
    _begin(course, resume)
    if settings.preview_every and not trainer.done:
        course.look()
    try:
        while trainer.done < total:
            started = time.perf_counter()
            taken = trainer.step()
            if course.journal:
                course.journal.step(trainer.done, taken, time.perf_counter() - started)
            yield _after(course, taken)
    except GeneratorExit:  # the caller has had enough: what is learnt so far is kept
        course.save()
        raise
    except UnderstudyError as error:
        if type(error) is not UnderstudyError:  # such as a disk that is full
            raise
        raise _kept(course, error) from error
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        trainer.rewind()
        raise memory_advice(trainer.done, course.save(), settings.batch_size) from error
    if course.journal:
        course.journal.plot()
    return course.concept()


def _begin(course: Course, resume: bool) -> None:
    """Go on from the last checkpoint, or make room for a new run."""
    trainer = course.trainer
    if course.folder is not None:
        run = Run(course.folder, course.settings.keep, course.facts)
        if resume:
            trainer.restore(run.resume().state())
        elif course.run:
            course.run.begin()
        trainer.team.wait()
    if course.run:
        course.journal = Journal(course.run.folder, trainer.done)
        course.looks += course.journal.looks()


def _after(course: Course, taken: TrainStep) -> LearnStep:
    """What follows a step: a look and a checkpoint, when their time has come."""
    settings, done = course.settings, course.trainer.done
    last = done == settings.steps
    look = saved = None
    if settings.preview_every and (done % settings.preview_every == 0 or last):
        look = course.look()
    if look or (settings.save_every and (done % settings.save_every == 0 or last)):
        saved = course.save()
    losses = (taken.loss, taken.photo_loss, taken.prior_loss)
    return LearnStep("learn", done - 1, settings.steps, *losses, saved=saved, look=look)


def _kept(course: Course, error: UnderstudyError) -> UnderstudyError:
    """The error, saying where the last whole step is kept."""
    saved = course.save()
    if saved is None:
        return error
    return UnderstudyError(f"{error} The steps before it are kept in {saved}.")
