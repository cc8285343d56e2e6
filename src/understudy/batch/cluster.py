"""Rows done by actors of a Ray cluster; each keeps its model loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from understudy.batch.local import AHEAD, Ended, Outcome
from understudy.batch.tasks import Task
from understudy.errors import ExtraMissing, InputError
from understudy.files.reading import parse_json
from understudy.jobs.events import Result
from understudy.jobs.pool import Pool
from understudy.jobs.request import Job
from understudy.jobs.runner import run

ATTEMPTS = 4  # of a row whose actor or node died
SHORT = 5.0  # seconds; an actor that has done a shorter row gets another one ahead


class RayWorker:
    """An actor: jobs in, outcomes out. It owns the models of its device."""

    def __init__(self) -> None:
        self.pool = Pool()

    def do(self, job: str) -> str:
        """The outcome of a job, both as JSON. An error that is a bug fails the row."""
        try:
            for event in run(Job.from_json(job), self.pool):
                if isinstance(event, Result):
                    return json.dumps(event.values)
        except Exception as error:
            kind = type(error).__name__
            return json.dumps({"status": "failed", "error": str(error), "error_kind": kind})
        raise AssertionError("a job ends with its result")


def by_actors(
    tasks: Iterator[Task], as_job: Callable[[Task], Job], address: str, count: int = 0
) -> Iterator[Ended]:
    """Do tasks by actors of a cluster; outcomes in the order they end.

    address: of the cluster, "auto" for the one that this machine belongs to, "local" for a new one.
    count: of actors; 0: one a GPU, or one a CPU where there are no GPUs. An actor has at most AHEAD
    tasks. A task whose actor or node dies is given to another actor. Raises InputError where the
    cluster cannot be reached.
    """
    ray = _ray()
    _connect(ray, address)
    try:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        count = count or gpus or int(ray.cluster_resources().get("CPU", 1))
        needs = {"num_cpus": 1, "num_gpus": min(1.0, gpus / count) if gpus else 0}
        kind = ray.remote(RayWorker).options(max_restarts=-1, scheduling_strategy="SPREAD", **needs)
        yield from _outcomes(ray, [kind.remote() for _ in range(count)], tasks, as_job)
    finally:
        ray.shutdown()


def _outcomes(
    ray: Any, actors: list[Any], tasks: Iterator[Task], as_job: Callable[[Task], Job]
) -> Iterator[Ended]:
    """Keep every actor busy: with one task, and with AHEAD where tasks are short.

    A long task that waits behind another would be idle actors' at the end.
    """
    running: dict[Any, tuple[Task, int, int]] = {}
    loads = [0] * len(actors)

    def give(number: int, task: Task, attempt: int) -> None:
        running[actors[number].do.remote(as_job(task).to_json())] = (task, number, attempt)
        loads[number] += 1

    def feed(number: int, most: int) -> None:
        while loads[number] < most and (task := next(tasks, None)) is not None:
            give(number, task, 1)

    for number in range(len(actors)):
        feed(number, 1)
    while running:
        (ready,), _ = ray.wait(list(running), num_returns=1)
        task, number, attempt = running.pop(ready)
        loads[number] -= 1
        try:
            outcome: Outcome = parse_json(ray.get(ready), "a result")
        except ray.exceptions.RayError as error:
            if attempt < ATTEMPTS:
                give(number, task, attempt + 1)
                continue
            reason = " ".join(str(error).split())[:500]
            outcome = {"status": "failed", "error": reason, "error_kind": type(error).__name__}
        feed(number, AHEAD if outcome.get("seconds", SHORT) < SHORT else 1)
        yield task, outcome


def _connect(ray: Any, address: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address == "local":
            ray.init(address="local", include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"There is no Ray cluster at {address}: {error}") from error


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ExtraMissing("batch", "--ray") from error
    return ray
