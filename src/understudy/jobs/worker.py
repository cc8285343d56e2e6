"""A process of its own for the jobs of one device: it owns the models and can be killed.

The parent sees the same events as from `runner.run`. Closing them cancels the job after its step.
A worker that dies is started again, and its job continues from its checkpoint, where it made one.
Messages are plain JSON data over a pipe.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from understudy import errors
from understudy.errors import UnderstudyError
from understudy.jobs.events import Event, Note, Result, from_dict, to_dict
from understudy.jobs.pool import Pool
from understudy.jobs.request import Job, inputs_of, settings_of
from understudy.jobs.runner import run, verb_function
from understudy.jobs.work import STORE
from understudy.settings import RunSettings

RESTARTS = 2  # of a worker within one job; a job that kills every worker is given up
PATIENCE = 60.0  # seconds that a cancelled job may take to end its step


class WorkerDied(RuntimeError):
    """A worker died RESTARTS times more than it may."""


class Worker:
    """One worker process. It runs a job at a time and keeps `models` loaded models.

    device: taken by jobs whose own device is "auto".
    """

    def __init__(self, device: str = "auto", models: int = 1) -> None:
        self.device, self.models = device, models
        self._process: Any = None
        self._pipe: Connection | None = None
        self._busy = False

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return None if self._process is None else self._process.pid

    def run(self, job: Job, *, preview_every: int = 0) -> Iterator[Event]:
        """Do a job in the worker; previews are as in `runner.run`.

        Raises the errors of the verb, RuntimeError for a bug in it, and WorkerDied for a worker
        that died RESTARTS times more than it may.
        """
        if self._busy:
            raise RuntimeError("this worker is busy; a worker does one job at a time")
        self._busy, finished = True, False
        try:
            for attempt in range(RESTARTS + 1):
                try:
                    again = job if not attempt else resumed(job)
                    yield from self._once(again, preview_every)
                    finished = True
                    return
                except EOFError:
                    code = self._ended()
                    yield Note(f"the worker process died (exit code {code}).")
            raise WorkerDied("the worker process died repeatedly; the job was abandoned")
        except (UnderstudyError, RuntimeError):
            finished = True
            raise
        finally:
            if not finished:
                self._cancel()
            self._busy = False

    def close(self) -> None:
        """End the process. A job at work is lost, up to its last checkpoint."""
        if self._process is not None:
            self._process.terminate()
            self._ended()

    def _once(self, job: Job, previews: int) -> Iterator[Event]:
        pipe = self._started()
        wish = {"job": job.to_dict(), "device": self.device, "preview_every": previews}
        _send(pipe, {**wish, "folder": os.getcwd()})
        while True:
            message = _receive(pipe)
            if "error" in message:
                raise raised(message["error"], message["message"])
            event = from_dict(message)
            yield event
            if isinstance(event, Result):
                return

    def _started(self) -> Connection:
        """The pipe to a process that lives."""
        if self._pipe is None or not self._process.is_alive():
            context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=serve, args=(theirs, self.models), daemon=True)
            self._process.start()
            theirs.close()
        return self._pipe

    def _cancel(self) -> None:
        """Ask for the end of the job; kill the worker if it does not answer."""
        try:
            if self._pipe is not None:
                _send(self._pipe, {"cancel": True})
                while self._pipe.poll(PATIENCE):
                    if "cancelled" in _receive(self._pipe):
                        return
        except EOFError:
            pass
        self.close()

    def _ended(self) -> int | None:
        """Forget a process that has ended; its exit code."""
        self._process.join(PATIENCE)
        code = self._process.exitcode
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None
        return code


def resumed(job: Job) -> Job:
    """The job as it is asked for again after its worker died: from its checkpoint, if it has one.

    Other verbs than `learn` find what they kept (inversions, notes of progress) by themselves.
    """
    if job.verb != "learn":
        return job
    folder = Path(job.inputs.get("out") or STORE / str(job.inputs.get("name")))
    kept = any((folder / "checkpoints").glob("step-*"))
    return replace(job, inputs={**job.inputs, "resume": kept or job.inputs.get("resume", False)})


def placed(job: Job, device: str) -> Job:
    """The job on a worker's device, unless it names one itself or needs none.

    Verbs that use a diffusion model have the device in their `run` settings; verbs that use a
    generator have it among their inputs.
    """
    if device == "auto":
        return job
    function = verb_function(job.verb)
    if any(one.annotation is RunSettings for one in settings_of(function).values()):
        group = dict(job.settings.get("run", {}))
        if group.get("device", "auto") != "auto":
            return job
        return replace(job, settings={**job.settings, "run": {**group, "device": device}})
    if "device" in inputs_of(function) and job.inputs.get("device", "auto") == "auto":
        return replace(job, inputs={**job.inputs, "device": device})
    return job


def raised(kind: str, message: str) -> Exception:
    """An error of the worker as the same error here; RuntimeError for anything but ours."""
    known: Any = getattr(errors, kind, None)
    if not (isinstance(known, type) and issubclass(known, UnderstudyError)):
        return RuntimeError(f"{kind}: {message}")
    error = known.__new__(known)
    Exception.__init__(error, message)
    return error


def serve(pipe: Connection, models: int) -> None:
    """The worker: jobs in, events out, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pool = Pool(models)
    while True:
        try:
            message = _receive(pipe)
        except EOFError:
            return
        if "job" not in message:  # a cancel that came after the job had ended
            _send(pipe, {"cancelled": True})
            continue
        try:
            os.chdir(message["folder"])
            # Here, not in the parent: to know what a verb takes is to import it, with torch.
            job = placed(Job.from_dict(message["job"]), message["device"])
            _answer(pipe, job, pool, message["preview_every"])
        except EOFError:
            return
        except Exception as error:
            _send(pipe, {"error": type(error).__name__, "message": str(error)})


def _end_with_parent() -> None:
    """End this process as soon as its parent has ended: nobody would read its result."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _answer(pipe: Connection, job: Job, pool: Pool, previews: int) -> None:
    """Send the events of one job, unless it is cancelled."""
    events = run(job, pool, preview_every=previews)
    for event in events:
        _send(pipe, to_dict(event))
        if pipe.poll() and "cancel" in _receive(pipe):
            getattr(events, "close", lambda: None)()
            _send(pipe, {"cancelled": True})
            return


def _send(pipe: Connection, message: dict[str, Any]) -> None:
    """Send one message; EOFError where nobody reads it."""
    try:
        pipe.send_bytes(json.dumps(message, ensure_ascii=False).encode())
    except (BrokenPipeError, ConnectionResetError) as error:
        raise EOFError from error


def _receive(pipe: Connection) -> dict[str, Any]:
    """Wait for one message; EOFError where the other side is gone."""
    try:
        return json.loads(pipe.recv_bytes())
    except (ConnectionResetError, BrokenPipeError) as error:
        raise EOFError from error
