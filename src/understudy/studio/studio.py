"""All parts of one studio server, started and stopped together."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from understudy.errors import InputError, OutputError
from understudy.files.builtin import CONCEPTS
from understudy.jobs.work import MANIFEST
from understudy.studio.bell import Bell
from understudy.studio.concepts import Concepts
from understudy.studio.config import Config
from understudy.studio.database import Database
from understudy.studio.drag_session import DragProcess
from understudy.studio.files import FileStore
from understudy.studio.models import Models
from understudy.studio.queue import Queue
from understudy.studio.store import CANCELLED, DONE, FAILED, QUEUED, RUNNING, JobStore
from understudy.studio.wishes import Wishes

DATABASE, LOCK = "studio.sqlite", ".studio.lock"


class Studio:
    """What the routes use. One server alone owns a data folder."""

    def __init__(self, config: Config) -> None:
        """Open the data folder. Raises OutputError where it cannot be used or is in use."""
        config = replace(config, data=config.data.resolve())
        self.config, self.bell = config, Bell()
        self._lock = _claimed(config)
        self.database = Database(config.data / DATABASE)
        self.files = FileStore(config, self.database)
        self.jobs = JobStore(self.database, self.bell)
        self.models = Models(config)
        self.concepts = Concepts(config)
        self.wishes = Wishes(self.files, self.concepts, self.models)
        self.drags = DragProcess(config.data / "drags")
        self.queue = Queue(self.jobs, self.files, self.wishes, config.devices)

    def start(self) -> None:
        """Begin to work on the queue."""
        self.queue.start()

    def stop(self) -> None:
        """End workers and streams; jobs at work go on at the next start."""
        self.bell.close()
        self.drags.close()
        self.queue.stop()
        self.database.close()
        self._lock.release()

    def submit(self, wish: dict[str, Any]) -> str:
        """Check a wish and queue it; the job's id. Raises InputError, LookupError."""
        checked = self.wishes.checked(wish)
        if checked["verb"] in ("learn", "convert"):
            self._check_name(checked)
        one = self.jobs.add(checked)
        self.queue.wake()
        return one

    def _check_name(self, wish: dict[str, Any]) -> None:
        """Raise InputError where what a job would write is there, or another job writes it."""
        name = str(wish["inputs"].get("name") or Path(wish["inputs"]["file"]).stem)
        learns = wish["verb"] == "learn"
        place = (self.concepts.store if learns else self.models.folders[0]) / name
        if (place / MANIFEST).is_file() or (not learns and place.exists()):
            raise InputError(f"{name} already exists. Delete it first, or use another name.")
        for row in self.jobs.list([QUEUED, RUNNING, FAILED, CANCELLED], most=500):
            same = row["verb"] == wish["verb"] and row["wish"]["inputs"].get("name") == name
            if same and (row["state"] in (QUEUED, RUNNING) or place.exists()):
                raise InputError(
                    f"Job {row['number']} ({row['state']}) has the name {name}. Resume or delete "
                    "that job, or use another name."
                )

    def forget_job(self, one: str) -> None:
        """Forget a job that has ended, and the unfinished run of a learning. Raises LookupError,
        InputError."""
        row = self.jobs.get(one)
        self.jobs.delete(one)
        if row["verb"] == "learn" and row["state"] != DONE:
            place = self.concepts.store / row["wish"]["inputs"]["name"]
            if not (place / MANIFEST).is_file():
                shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(self.files.job_folder(one) / "in", ignore_errors=True)

    def remove_concept(self, name: str) -> None:
        """Remove a concept that was learnt here. Raises InputError, OutputError."""
        place = self.concepts.folder(name)
        if place.parent == CONCEPTS:
            raise InputError(f"{name} is built in and cannot be removed.")
        if place.parent != self.concepts.store:
            raise InputError(f"{name} is not in the studio's data folder. Remove it there.")
        for row in self.jobs.list([RUNNING]):
            if row["verb"] == "learn" and row["wish"]["inputs"].get("name") == name:
                raise InputError(f"{name} is being learnt. Cancel that job first.")
        shutil.rmtree(place)


def _claimed(config: Config) -> Any:
    """The lock of the data folder, which ends with the process."""
    from filelock import FileLock, Timeout

    try:
        config.data.mkdir(parents=True, exist_ok=True)
        lock = FileLock(config.data / LOCK)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(
            f"{config.data} is in use by another studio. Close it, or give another --data."
        ) from error
    except OSError as error:
        raise OutputError(f"{config.data} cannot be used: {error.strerror}.") from error
    return lock
