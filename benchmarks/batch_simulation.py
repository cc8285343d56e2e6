"""A batch on 1,000 workers, simulated: where is the bottleneck of 100,000 edits and 1,000 subjects?

    python -m benchmarks.batch_simulation [--workers 1000] [--markdown FILE]

The driver's costs are measured here, on a batch that does nothing: reading, planning and sending a
row, and receiving and writing its outcome. Then events are simulated: one driver that serves one
row after another, workers that take a time drawn from a log-normal distribution, a model to load,
class images that one worker per class draws while the others wait. Times of models are assumptions.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.batch.batch import Batch, batch_steps
from understudy.batch.cluster import SHORT
from understudy.batch.local import AHEAD
from understudy.batch.tasks import Task
from understudy.jobs.events import completed
from understudy.jobs.request import Job


@dataclass(frozen=True)
class Load:
    """Rows of one kind. seconds: median of one on a worker. spread: sigma of its logarithm.

    classes: rows share the class images of so many classes, `class_seconds` each; 0: none.
    """

    name: str
    rows: int
    seconds: float
    spread: float = 0.25
    classes: int = 0
    class_seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """seconds: of the whole batch. busy: share of the workers' time that is work; driver: share of
    the driver's time; waiting: workers' seconds spent on class images of others; tail: seconds from
    the first idle worker to the end."""

    seconds: float
    busy: float
    driver: float
    waiting: float
    tail: float


def measured(rows: int = 3000) -> float:
    """Seconds of the driver a row: everything but the work and the network."""

    def nothing(
        tasks: Iterator[Task], as_job: Callable[[Task], Job]
    ) -> Iterator[tuple[Task, dict[str, Any]]]:
        recipe = "x" * 3000
        for task in tasks:
            json.loads(as_job(task).to_json())
            yield task, {"status": "done", "recipe": recipe, "files": ["a"], "digests": ["b" * 64]}

    row = {"verb": "edit", "settings": {"edit": {"steps": 50}}}
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "jobs.jsonl"
        inputs = {"photo": "photos/0.png", "prompt": "a cat", "to": ["a dog"]}
        lines = [json.dumps({**row, "id": f"r{k}", "inputs": inputs}) for k in range(rows)]
        table.write_text("\n".join(lines))
        batch = Batch(str(table), str(Path(folder) / "out"))
        completed(batch_steps(Batch(str(table), str(Path(folder) / "warm")), nothing))
        began = time.process_time()
        completed(batch_steps(batch, nothing))
        return (time.process_time() - began) / rows


def simulated(
    load: Load, workers: int, driver: float, network: float, loading: float, seed: int = 0
) -> Outcome:
    """Run a batch event by event.

    driver: its seconds a row, half to send and half to receive. network: seconds a message takes.
    loading: seconds until a worker has its model. A worker has AHEAD short rows, or one long one.
    """
    lot = random.Random(seed)
    free_driver = working = served = waiting = 0.0
    idle_since = [0.0] * workers  # when each worker has nothing more to do
    class_free: dict[int, float] = {}  # when its images are there
    events: list[tuple[float, int, int]] = []  # (time, order, worker): an outcome arrives
    sent = order = 0

    def send(worker: int, now: float) -> None:
        nonlocal free_driver, working, served, waiting, sent, order
        free_driver = max(free_driver, now) + driver / 2
        served += driver / 2
        start = max(free_driver + network, idle_since[worker], loading)
        cost = load.seconds * lot.lognormvariate(0, load.spread)
        if load.classes:
            which = sent % load.classes
            if which not in class_free:
                class_free[which] = start + load.class_seconds
                working += load.class_seconds
            else:
                waiting += max(0.0, class_free[which] - start)
            start = max(start, class_free[which])
        working += cost
        idle_since[worker] = start + cost
        heapq.heappush(events, (idle_since[worker] + network, order, worker))
        sent, order = sent + 1, order + 1

    ahead = AHEAD if load.seconds < SHORT else 1
    for worker in list(range(workers)) * ahead:
        if sent < load.rows:
            send(worker, 0.0)
    end, first_idle = 0.0, 0.0
    while events:
        now, _, worker = heapq.heappop(events)
        free_driver = max(free_driver, now) + driver / 2
        served += driver / 2
        end = max(end, free_driver)
        if sent < load.rows:
            send(worker, free_driver)
        elif not first_idle:
            first_idle = now
    return Outcome(end, working / (workers * end), served / end, waiting, end - first_idle)


def table(workers: int, driver: float, network: float, loading: float) -> list[str]:
    """The simulated loads as lines of Markdown."""
    loads = [
        Load("100,000 edits of 4 s (SD 1.5, a GPU each)", 100_000, 4.0),
        Load("100,000 edits of 1 s (few steps)", 100_000, 1.0),
        Load("100,000 edits of 0.2 s (toys)", 100_000, 0.2),
        Load("1,000 subjects of 600 s, 20 classes of 120 s", 1_000, 600.0, 0.1, 20, 120.0),
        Load("1,000 subjects of 600 s, one class of 120 s", 1_000, 600.0, 0.1, 1, 120.0),
        Load("4,000 subjects of 600 s, 20 classes of 120 s", 4_000, 600.0, 0.1, 20, 120.0),
    ]
    lines = ["| load | workers | time | workers busy | driver busy | waiting for classes | tail |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for load in loads:
        for count in (workers // 10, workers):
            one = simulated(load, count, driver, network, loading)
            lines.append(
                f"| {load.name} | {count} | {one.seconds:.0f} s | {one.busy:.0%} | "
                f"{one.driver:.0%} | {one.waiting:.0f} s | {one.tail:.0f} s |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--driver", type=float, help="seconds a row; measured if not given")
    parser.add_argument("--network", type=float, default=0.002, help="seconds a message")
    parser.add_argument("--loading", type=float, default=20.0, help="seconds to load a model")
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    driver = given.driver or measured()
    text = [f"Driver: {driver * 1000:.2f} ms a row (at most {1 / driver:.0f} rows/s).", ""]
    text += table(given.workers, driver, given.network, given.loading)
    print("\n".join(text))
    if given.markdown:
        given.markdown.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
