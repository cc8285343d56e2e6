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
from understudy.learn.checkpoint import RunFolder, memory_advice, out_of_memory
from understudy.learn.log import Log
from understudy.learn.preview import Preview, Previewer, best
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
    preservation. saved, preview: the checkpoint and the preview of this step, if any; at the end,
    `preview` is the best of all. concept: there when the phase is "done", the model
    being as it was before by then. warnings: what speaks against the identifier. kept: class images
    of this class and size in the cache by now, in the phase "prior".
    """

    phase: Literal["prior", "learn", "done"]
    index: int
    total: int
    loss: float = math.nan
    photo_loss: float = math.nan
    prior_loss: float = math.nan
    saved: Path | None = None
    preview: Preview | None = None
    concept: Concept | None = None
    warnings: tuple[str, ...] = ()
    kept: int = 0


@dataclass
class LearnRun:
    """A trainer on its way. blank: the concept without its tensors. folder: of the run, if it is to
    be kept; facts: what makes it this run."""

    trainer: Trainer
    viewer: Previewer
    blank: Concept
    settings: LearnSettings
    folder: Path | None
    facts: Mapping[str, Any]
    previews: list[Preview] = field(default_factory=list[Preview])
    log: Log | None = None

    @property
    def store(self) -> RunFolder | None:
        """The folder's checkpoints; None for processes that do not write."""
        if self.folder is None or not self.trainer.distributed.leads:
            return None
        return RunFolder(self.folder, self.settings.keep_checkpoints, self.facts)

    def concept(self) -> Concept:
        """What is learnt by now; the running average where one is kept."""
        # The average, where one is kept: it varies less from step to step than the weights.
        with holding(self.trainer.trainable.parameters, self.trainer.averages):
            tensors = self.trainer.trainable.tensors()
        return replace(self.blank, tensors=tensors)

    def save(self) -> Path | None:
        """Keep a checkpoint; None where nothing is to be kept, or no step was taken."""
        if self.store is None or not self.trainer.done:
            return None
        # The best checkpoint so far is never removed to make room for later ones.
        chosen = best(self.previews).step if self.previews else 0
        state = self.trainer.state()
        return self.store.save(self.trainer.done, self.concept(), state, protect=chosen)

    def preview(self) -> Preview | None:
        """Make a preview and log it. All processes wait for the first."""
        found: Preview | None = None
        if self.trainer.distributed.leads:
            found = self.viewer.preview(self.trainer)
            self.previews.append(found)
            if self.log:
                self.log.preview(found, self.previews[0])
        # Without the barrier the others would wait inside the next gradient sum, where a timeout
        # ends the run.
        self.trainer.distributed.wait()
        return found


def run_steps(training: LearnRun, *, resume: bool) -> Generator[LearnStep, None, Concept]:
    """Take all steps, yielding after each; return the concept. The folder is claimed already."""
    trainer, settings, total = training.trainer, training.settings, training.settings.steps
    _begin(training, resume)
    # The preview before the first step is the reference for drift warnings.
    if settings.preview_every and not trainer.done:
        training.preview()
    try:
        while trainer.done < total:
            started = time.perf_counter()
            taken = trainer.step()
            if training.log:
                training.log.step(trainer.done, taken, time.perf_counter() - started)
            yield _after(training, taken)
    except GeneratorExit:  # the caller has had enough: what is learnt so far is kept
        training.save()
        raise
    except UnderstudyError as error:
        if type(error) is not UnderstudyError:  # such as a disk that is full
            raise
        raise _kept(training, error) from error
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        # A half-made step has left gradients, and used random numbers of the next one.
        trainer.rewind()
        raise memory_advice(trainer.done, training.save(), settings.batch_size) from error
    if training.log:
        training.log.plot()
    return training.concept()


def _begin(training: LearnRun, resume: bool) -> None:
    """Go on from the last checkpoint, or make room for a new run."""
    trainer = training.trainer
    if training.folder is not None:
        run = RunFolder(training.folder, training.settings.keep_checkpoints, training.facts)
        if resume:
            # Every process reads the same checkpoint, also those that do not write.
            trainer.restore(run.resume().state())
        elif training.store:
            training.store.begin()
        trainer.distributed.wait()
    if training.store:
        training.log = Log(training.store.folder, trainer.done)
        training.previews += training.log.previews()


def _after(training: LearnRun, taken: TrainStep) -> LearnStep:
    """After a step: a preview and a checkpoint, when they are due."""
    settings, done = training.settings, training.trainer.done
    last = done == settings.steps
    preview = saved = None
    if settings.preview_every and (done % settings.preview_every == 0 or last):
        preview = training.preview()
    if preview or (settings.save_every and (done % settings.save_every == 0 or last)):
        saved = training.save()
    losses = (taken.loss, taken.photo_loss, taken.prior_loss)
    return LearnStep("learn", done - 1, settings.steps, *losses, saved=saved, preview=preview)


def _kept(training: LearnRun, error: UnderstudyError) -> UnderstudyError:
    """The error, saying where the last whole step is kept."""
    saved = training.save()
    if saved is None:
        return error
    return UnderstudyError(f"{error} The steps before it are saved in {saved}.")
