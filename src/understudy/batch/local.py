"""Rows done in this process, or by worker processes here; each keeps its model loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

from understudy.batch.tasks import Task
from understudy.jobs.events import Result
from understudy.jobs.pool import Pool
from understudy.jobs.request import Job
from understudy.jobs.runner import run
from understudy.jobs.worker import Worker, WorkerDied

AHEAD = 2  # tasks a worker that are read from the table before one has ended
ROUNDS = 4  # of a row whose worker died three times in each
Outcome = dict[str, Any]
Ended = tuple[Task, Outcome]


def here(tasks: Iterator[Task], as_job: Callable[[Task], Job]) -> Iterator[Ended]:
    """Do tasks one after another in this process."""
    pool = Pool()
    for task in tasks:
        yield task, _last(run(as_job(task), pool))


def by_workers(
    tasks: Iterator[Task], as_job: Callable[[Task], Job], devices: Sequence[str]
) -> Iterator[Ended]:
    """Do tasks in worker processes, one a device of `devices`; outcomes in the order they end.

    No more than AHEAD tasks a worker are taken from `tasks` before one has ended. A worker that
    dies is started again and repeats its task. Closing the iterator cancels the tasks at work.
    """
    todo, done = SimpleQueue[Task | None](), SimpleQueue[Ended]()
    stop = Event()

    def work(device: str) -> None:
        worker = Worker()
        try:
            while (task := todo.get()) is not None:
                try:
                    job = as_job(task)
                    job = replace(job, inputs={**job.inputs, "device": device})
                    outcome = _attempt(worker, job, stop)
                except Exception as error:  # each task has an outcome: somebody waits for it
                    outcome = _failed(error)
                done.put((task, outcome))
        finally:
            worker.close()

    threads = [Thread(target=work, args=(device,), daemon=True) for device in devices]
    for thread in threads:
        thread.start()
    waiting = 0
    try:
        for task in tasks:
            todo.put(task)
            waiting += 1
            if waiting >= AHEAD * len(devices):
                yield done.get()
                waiting -= 1
        for _ in range(waiting):
            yield done.get()
    finally:
        stop.set()
        _emptied(todo)
        for _ in threads:
            todo.put(None)
        for thread in threads:
            thread.join()


def _attempt(worker: Worker, job: Job, stop: Event) -> Outcome:
    """What came of a job; an error that is a bug, or a row that kills every worker, fails the row.

    `Worker.run` starts a dead worker again twice. Others may kill workers more often than that.
    """
    left = ROUNDS
    while not stop.is_set():
        events: Any = worker.run(job)
        try:
            for event in events:
                if isinstance(event, Result):
                    return event.values
                if stop.is_set():
                    break
        except Exception as error:
            left -= 1
            if not isinstance(error, WorkerDied) or not left:
                return _failed(error)
        finally:
            events.close()
    return {"status": "failed", "error": "stopped", "error_kind": "Stopped"}


def _last(events: Iterator[Any]) -> Outcome:
    try:
        for event in events:
            if isinstance(event, Result):
                return event.values
    except Exception as error:
        return _failed(error)
    raise AssertionError("a job ends with its result")


def _failed(error: Exception) -> Outcome:
    return {"status": "failed", "error": str(error), "error_kind": type(error).__name__}


def _emptied(queue: SimpleQueue[Task | None]) -> None:
    while True:
        try:
            queue.get_nowait()
        except Empty:
            return
