"""Runs queued jobs, one thread and one worker process a device; each job ends exactly once.

A worker that dies is started again by `jobs.worker`. A server that dies leaves its job "running"
in the database; the next start queues it again, and it goes on from its own checkpoint.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from understudy.errors import InputError, UnderstudyError, one_line
from understudy.files.builtin import CONCEPTS, WEIGHTS
from understudy.files.reading import read_bytes
from understudy.jobs.events import Event, Note, Progress, Result, to_dict
from understudy.jobs.request import Job
from understudy.jobs.worker import Worker, WorkerDied, resumed
from understudy.studio.config import Config
from understudy.studio.files import FileStore, public
from understudy.studio.store import CANCELLED, DONE, FAILED, RUNNING, JobStore
from understudy.studio.wishes import Wishes

PROGRESS_EVERY = 0.2  # seconds between two progress events that are kept
PREVIEW_EVERY = 5  # steps
PATIENCE = 10.0  # seconds until a cancelled job's worker is killed
MOST_ATTEMPTS = 100  # of a job whose server or worker died each time
RECOVERED = "the studio was stopped during this job; it continues from its last checkpoint."


class Queue:
    """The worker threads of one server."""

    def __init__(
        self, jobs: JobStore, files: FileStore, wishes: Wishes, devices: tuple[str, ...]
    ) -> None:
        self.jobs, self.files, self.wishes = jobs, files, wishes
        self.workers = [Worker(device) for device in devices]
        self._wake = threading.Condition()
        self._stopping = False
        self._cancelled: set[str] = set()
        self._threads: list[threading.Thread] = []
        self._now: dict[str, Worker] = {}  # job -> who does it
        self._moved: set[str] = set()  # jobs that made a step since they were claimed
        self._folders = folders_of(files.config)

    def start(self) -> None:
        """Queue what an earlier server left running, and begin."""
        kill_orphans(self._pids)
        self.jobs.recover(RECOVERED, MOST_ATTEMPTS)
        for worker in self.workers:
            thread = threading.Thread(target=self._loop, args=(worker,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self, seconds: float = PATIENCE) -> None:
        """End the workers; jobs at work are queued again, to go on at the next start."""
        self._stopping = True
        self.wake()
        ends = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(ends - time.monotonic(), 0.1))
        for worker in self.workers:
            _kill(worker.pid)
        for thread in self._threads:
            thread.join(5)
        self._pids.unlink(missing_ok=True)

    def wake(self) -> None:
        """Say that something was queued."""
        with self._wake:
            self._wake.notify_all()

    def cancel(self, one: str) -> None:
        """Cancel a job, waiting or running. Raises LookupError."""
        state = self.jobs.get(one)["state"]
        if self.jobs.cancel_queued(one) or state != RUNNING:
            return
        self._cancelled.add(one)
        self.jobs.tell(one, "cancelling", {})  # a server that is started again knows it, too
        killer = threading.Timer(PATIENCE, self._kill_if_at_work, (one,))
        killer.daemon = True
        killer.start()

    @property
    def _pids(self) -> Path:
        return self.files.config.data / "workers.pid"

    def _kill_if_at_work(self, one: str) -> None:
        worker = self._now.get(one)
        if worker is not None:
            _kill(worker.pid)

    def _loop(self, worker: Worker) -> None:
        while not self._stopping:
            row = self.jobs.claim()
            if row is None:
                with self._wake:
                    self._wake.wait(1.0)
                continue
            self._now[row["id"]] = worker
            try:
                self._work(worker, row)
            except Exception as error:  # a bug here must not end the thread
                self.jobs.end(row["id"], FAILED, error=one_line(f"{type(error).__name__}: {error}"))
            finally:
                self._now.pop(row["id"], None)
                self._moved.discard(row["id"])
                self._cancelled.discard(row["id"])
        worker.close()

    def _work(self, worker: Worker, row: dict[str, Any]) -> None:
        one = row["id"]
        try:
            job = self.wishes.job(one, row["wish"])
            again = row["attempts"] > 1 or any(k == "note" for _, k, _ in self.jobs.events(one))
            result = self._follow(worker, one, resumed(job) if again else job)
        except (UnderstudyError, LookupError, RuntimeError) as error:
            # A worker that others kill goes on; one that dies without a step does so by itself.
            killed = isinstance(error, WorkerDied) and one in self._moved
            if one in self._cancelled:
                self.jobs.end(one, CANCELLED)
            elif self._stopping or (killed and row["attempts"] < MOST_ATTEMPTS):
                self.jobs.back(one)
            else:
                self.jobs.end(one, FAILED, error=self.scrubbed(one_line(str(error))))
            return
        if result is not None:
            self._finish(one, result)
        elif self._stopping and one not in self._cancelled:
            self.jobs.back(one)
        else:
            self.jobs.end(one, CANCELLED)

    def _follow(self, worker: Worker, one: str, job: Job) -> Result | None:
        """Keep the events of a job; None where it was cancelled or the server stops."""
        events = worker.run(job, preview_every=PREVIEW_EVERY)
        told, phase = 0.0, ""
        for event in events:
            note_pids(self._pids, self.workers)
            if isinstance(event, Result):
                return event
            if self._stopping or one in self._cancelled:
                _closed(events)
                return None
            now = time.monotonic()
            if isinstance(event, Progress):
                self._moved.add(one)
            if isinstance(event, Progress):
                # The first of a phase is kept: the next may come after minutes.
                kept = event.preview or _last(event) or event.phase != phase
                if not kept and now - told < PROGRESS_EVERY:
                    continue
                told, phase = now, event.phase
            self.jobs.tell(one, *self._body(event))
        return None

    def _body(self, event: Event) -> tuple[str, dict[str, Any]]:
        """Kind and body of an event, without paths of the server."""
        if isinstance(event, Note):
            return "note", {"text": self.scrubbed(event.text)}
        if isinstance(event, Progress):
            event = replace(event, kept=self.scrubbed(event.kept))
        body = to_dict(event)
        return str(body.pop("event")), body

    def _finish(self, one: str, result: Result) -> None:
        """Put results into the table of files and end the job, at once."""
        root = self.files.config.data.resolve()
        rows: list[dict[str, Any]] = []
        for name in result.files:
            path = Path(name).resolve()
            if path.is_file() and path.is_relative_to(root):
                rows.append(self.files.result(path))
        told = {
            "values": self.scrubbed_data(result.values),
            "lines": [self.scrubbed(line) for line in result.lines],
            "files": [public({**row, "job": one}) for row in rows],
        }
        self.jobs.end(one, DONE, result=told, files=rows)
        shutil.rmtree(self.files.job_folder(one) / "in", ignore_errors=True)

    def scrubbed(self, text: str) -> str:
        """A text without the folders of the server."""
        for root, name in self._folders.items():
            text = text.replace(root + os.sep, "")
            text = re.sub(re.escape(root) + r"(?![\w.-])", name, text)
        return text

    def scrubbed_data(self, value: Any) -> Any:
        """JSON data without the folders of the server."""
        if isinstance(value, str):
            return self.scrubbed(value)
        if isinstance(value, list | tuple):
            return [self.scrubbed_data(one) for one in value]
        if isinstance(value, dict):
            return {str(k): self.scrubbed_data(v) for k, v in value.items()}
        return value


def folders_of(config: Config) -> dict[str, str]:
    """The folders that no page is told, and what stands for each; the innermost first."""
    named = {config.data: "the data folder", CONCEPTS: "the built-in concepts"}
    named |= {WEIGHTS: "the built-in models", WEIGHTS.parent: "understudy"}
    named |= dict.fromkeys(config.models, "a folder of models")
    named |= dict.fromkeys(config.concepts, "a folder of concepts")
    if len(Path.home().parts) > 1:
        named.setdefault(Path.home(), "the home folder")
    found = {str(one): name for folder, name in named.items() for one in {folder, folder.resolve()}}
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def note_pids(file: Path, workers: list[Worker]) -> None:
    """Remember the worker processes, so that the next server can end those of a killed one."""
    lines = [f"{w.pid} {started(w.pid)}" for w in workers if w.pid is not None]
    text = "".join(f"{line}\n" for line in lines)
    if not file.is_file() or read_bytes(file).decode() != text:
        file.write_text(text)


def kill_orphans(file: Path) -> None:
    """End worker processes that a killed server left, before their jobs start again."""
    if not file.is_file():
        return
    for line in read_bytes(file).decode(errors="replace").splitlines():
        number, _, began = line.partition(" ")
        if number.isdigit() and began and began == started(int(number)):
            _kill(int(number))
            for _ in range(100):
                if started(int(number)) != began:
                    break
                time.sleep(0.05)
    file.unlink(missing_ok=True)


def started(pid: int | None) -> str:
    """When a process began, in the system's ticks; "" for none or where /proc is missing.

    A number alone does not tell a worker from a later process that got the same number.
    """
    try:
        text = read_bytes(f"/proc/{pid}/stat", most=10_000).decode(errors="replace")
    except InputError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def _kill(pid: int | None) -> None:
    if pid is not None:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass


def _closed(events: Iterator[Event]) -> None:
    getattr(events, "close", lambda: None)()


def _last(event: Progress) -> bool:
    return event.index + 1 >= event.total
