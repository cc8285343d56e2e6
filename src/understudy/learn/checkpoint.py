"""Checkpoints of a training run: complete or absent; one run per folder; resuming.

    run/concept.json, weights-*.safetensors     the finished concept
    run/checkpoints/step-000100/                a concept of its own, usable as it is, and beside it
        state.safetensors, state.json           all that the next step depends on; the tensors of
                                                the last two, and of the last one when it is done

A checkpoint is staged under a hidden name, its manifest written last, and renamed; older ones are
removed only afterwards. This module does not know what is learnt.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy.concept import Concept
from understudy.errors import ConceptError, InputError, OutputError, UnderstudyError, sentence
from understudy.files import spec
from understudy.files.atomic import remove_folder, remove_leftovers, replacing, staging, unwritable
from understudy.files.reading import as_json, read_json
from understudy.files.tensors import load_tensors, write_tensors

FORMAT = 1
STATE, TENSORS = "state.json", "state.safetensors"
DECLARED = spec.Record(
    {
        "format": spec.Number(FORMAT, FORMAT, whole=True),
        "step": spec.Number(0, 1e9, whole=True),
        "facts": spec.Record(
            {},
            {
                "settings": spec.Record(
                    {}, {"steps": spec.Number(0, 1e9, whole=True)}, others=spec.Data()
                )
            },
            others=spec.Data(),
        ),
    }
)
OWNER = spec.Record(
    {"pid": spec.Number(0, 2**32, whole=True), "host": spec.Text(400), "since": spec.Text(400)}
)
# What may change when a run is resumed: it does not change what the next step does.
FREE = ("steps", "save_every", "keep_checkpoints", "keep", "preview_every")


@dataclass(frozen=True)
class Checkpoint:
    """A folder that is a concept, and from which its run can go on; after `step` steps."""

    folder: Path
    step: int
    facts: Mapping[str, Any]

    def state(self) -> dict[str, Tensor]:
        """Trainer.state() as it was; ConceptError where the file is damaged."""
        file = self.folder / TENSORS
        try:
            tensors, _ = load_tensors(file)
            spec.check_finite(tensors)
            return tensors
        except (OSError, spec.Unfit) as error:
            raise ConceptError(
                f"{file} is damaged: {sentence(error)} Remove {self.folder} to continue from the "
                "checkpoint before it."
            ) from error


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run. keep: number of checkpoints to keep; facts: what makes it this run."""

    folder: Path
    keep: int
    facts: Mapping[str, Any]

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def folder_of(self, step: int) -> Path:
        """Where the checkpoint after `step` steps is, or would be."""
        return self.checkpoints / f"step-{step:06d}"

    def save(
        self, step: int, concept: Concept, state: Mapping[str, Tensor], *, protect: int = 0
    ) -> Path:
        """Keep a checkpoint, then drop those there are too many, never the one after step
        `protect`; the folder it is in.

        Raises OutputError where it cannot be written; those there were stay whole.
        """
        folder = self.folder_of(step)
        # The last step of a resumed run may have been kept before; its state is the same.
        if folder.exists():
            return folder
        with staging(folder) as staged:
            concept.save(staged)
            write_tensors(staged / TENSORS, state)
            manifest = {"format": FORMAT, "step": step, "facts": dict(self.facts)}
            (staged / STATE).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        # Only after the new one is whole: a full disk never leaves a run without a checkpoint.
        for old in self._folders()[: -self.keep]:
            if old != self.folder_of(protect):
                remove_folder(old)
        # With moments, a state is many times as large as what was learnt. Earlier ones stay usable
        # as concepts; nothing goes on from them. Until the end, one is kept in case of damage.
        finished = step == self.facts.get("settings", {}).get("steps")
        for old in self._folders()[: -1 if finished else -2]:
            with suppress(OSError):  # room that stays in use ends no run
                (old / TENSORS).unlink(missing_ok=True)
        return folder

    def latest(self) -> Checkpoint | None:
        """The last checkpoint, None without any; ConceptError where it is damaged."""
        folders = self._folders()
        return read_checkpoint(folders[-1]) if folders else None

    def check(self, resume: bool) -> None:
        """Raise what `resume` or `begin` would raise; nothing is changed."""
        if resume:
            self.resume()
            return
        last = self.latest()
        total = int(last.facts.get("settings", {}).get("steps", 0)) if last else 0
        if last and last.step < total:
            raise OutputError(
                f"{self.folder} holds a run that stopped after step {last.step} of {total}. "
                f"--resume continues it; to start over, remove {self.checkpoints} or choose "
                f"another --out."
            )

    def begin(self) -> None:
        """Make room for a new run. Raises OutputError where an unfinished one would be lost."""
        self.check(resume=False)
        for folder in self._folders():
            remove_folder(folder)

    def resume(self) -> Checkpoint:
        """Where to go on. Raises ConceptError where there is nothing, or it is of another run."""
        last = self.latest()
        if last is None:
            raise ConceptError(
                f"--resume: there is no checkpoint in {self.checkpoints}. Without --resume the "
                f"run starts over."
            )
        # Other settings would go on with moments and random numbers of another run.
        ours, theirs = _flat(self.facts), _flat(last.facts)
        # The method first: the other differences follow from it.
        for key in sorted(ours.keys() | theirs.keys(), key=lambda key: (key != "method", key)):
            if ours.get(key) != theirs.get(key) and key not in FREE:
                raise ConceptError(
                    f"--resume: {last.folder} was made with {key} {theirs.get(key)!r}, now it is "
                    f"{ours.get(key)!r}. Use the same, or choose another --out."
                )
        return last

    def _folders(self) -> list[Path]:
        """The folders of whole checkpoints, the earliest first."""
        # A folder gets its name in one rename, with all of its files; a kill leaves none half.
        return sorted(path.parent for path in self.checkpoints.glob(f"step-*/{STATE}"))


def read_checkpoint(folder: Path) -> Checkpoint:
    """What a checkpoint's manifest says. Raises ConceptError naming a file that is damaged."""
    file = folder / STATE
    manifest: Any = read_json(file, error=ConceptError)
    try:
        DECLARED.check(manifest, "it")
    except spec.Unfit as problem:
        raise ConceptError(f"{file} is damaged or of another version: {problem}.") from None
    return Checkpoint(folder, manifest["step"], manifest["facts"])


@contextmanager
def claimed(folder: Path) -> Generator[None]:
    """This process alone may run in `folder` inside the block; leftovers of a kill are removed.

    Raises OutputError, naming the other process, while one does; OutputError where the folder
    cannot be written.
    """
    from filelock import FileLock, Timeout

    owner = folder / ".run.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A lock of the operating system is released when its process dies; a file with a process id
        # is not.
        lock = FileLock(folder / ".run.lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(
            f"{folder} is in use by {_owner(owner)}. Choose another --out."
        ) from error
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        facts = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%c")}
        with replacing(owner) as staged:
            staged.write_text(json.dumps(facts))
        # With the lock in hand, whatever is staged here belongs to a process that is dead.
        remove_leftovers(folder)
        remove_leftovers(folder / "checkpoints")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or not."""
    words = ("not enough memory", "can't allocate memory", "out of memory")
    is_ours = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return is_ours or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))


def memory_advice(step: int, saved: Path | None, batch: int) -> UnderstudyError:
    """What to do when memory ran out at a step."""
    kept = f"Step {step} is saved in {saved}. " if saved else ""
    smaller = f"--batch-size 1 --accumulate {batch}" if batch > 1 else "--precision bfloat16"
    return UnderstudyError(
        f"Out of memory after step {step}. {kept}To need less, try "
        f"--gradient-checkpointing (slower, far less memory), {smaller}, or --method lora, which "
        f"trains a hundredth of the weights."
    )


def _owner(file: Path) -> str:
    try:
        facts = read_json(file, most=100_000)
        OWNER.check(facts, "it")
    except (InputError, spec.Unfit):
        return "another process"
    return f"process {facts['pid']} on {facts['host']} since {facts['since']}"


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts with the settings among them, as JSON gives them back."""
    plain: dict[str, Any] = as_json(dict(facts))
    return {**plain.pop("settings", {}), **plain}
