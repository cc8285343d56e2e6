"""All parts of one studio server, started and stopped together."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

from understudy.errors import InputError, OutputError
from understudy.studio.bell import Bell
from understudy.studio.concepts import Concepts
from understudy.studio.config import Config
from understudy.studio.database import Database
from understudy.studio.drag_session import DragProcess
from understudy.studio.files import FileStore
from understudy.studio.models import Models
from understudy.studio.queue import Queue
from understudy.studio.store import RUNNING, JobStore
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
        one = self.jobs.add(self.wishes.checked(wish))
        self.queue.wake()
        return one

    def remove_concept(self, name: str) -> None:
        """Remove a concept that was learnt here. Raises InputError, OutputError."""
        place = self.concepts.folder(name)
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
