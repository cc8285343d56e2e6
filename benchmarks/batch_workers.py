"""The same batch over 1, 2 and 4 workers and a Ray cluster of two nodes: are the results bit-equal?

    python -m benchmarks.batch_workers --rows 2000 --ways 1,2,4,ray,killed --out build/batch

Each row generates a picture in one step. `killed` is two workers of which --kills random ones are
killed (SIGKILL) on the way. Prints rows a second, and the largest memory of this process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from understudy.batch.batch import RESULTS, Batch, Doing, batch_steps
from understudy.batch.cluster import by_actors
from understudy.batch.local import by_workers
from understudy.batch.places import Place
from understudy.batch.results import read_results
from understudy.jobs.events import completed

Digests = dict[str, tuple[int, tuple[str, ...]]]  # key -> seed, digests of the row's files


def jobs(path: Path, rows: int, model: str) -> str:
    """A table of `rows` prompts."""
    settings = {
        "run": {"model": model, "device": "cpu"},
        "generate": {"steps": 1, "guidance": 1.0},
        "mark": {"c2pa": "off", "watermark": "off"},
    }
    row = {"verb": "generate", "settings": settings}
    lines = [json.dumps({**row, "inputs": {"prompt": f"a cat {k}"}}) for k in range(rows)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@contextmanager
def killing(most: int, between: tuple[float, float]) -> Iterator[list[int]]:
    """Kill `most` random worker processes of this one, one after another, inside the block."""
    lot, stop, killed = random.Random(0), threading.Event(), list[int]()

    def kill() -> None:
        while len(killed) < most and not stop.wait(lot.uniform(*between)):
            living = [p.pid for p in multiprocessing.active_children() if p.pid and p.is_alive()]
            if living:
                killed.append(lot.choice(living))
                os.kill(killed[-1], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


@contextmanager
def two_nodes() -> Iterator[str]:
    """The address of a new Ray cluster of two nodes with one CPU each, on this machine."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        cluster.add_node(num_cpus=1)
        yield cluster.address
    finally:
        cluster.shutdown()


def done(table: str, out: Path, doing: Doing) -> tuple[Digests, float]:
    """Do a batch; what came of each row, and seconds."""
    shutil.rmtree(out, ignore_errors=True)
    began = time.monotonic()
    result = completed(batch_steps(Batch(table, str(out)), doing))
    seconds = time.monotonic() - began
    rows = read_results(Place(str(out)) / RESULTS)
    found = {row["key"]: (row["seed"], tuple(row["digests"])) for row in rows}
    assert len(rows) == len(found), "a row is there twice"
    assert result.values["failed"] == 0, [row["error"] for row in rows if row["error"]][:1]
    return found, seconds


def compared(table: str, ways: list[str], out: Path, kills: int) -> bool:
    """Do the batch in each way and print how it went; whether all results are equal."""
    seen: dict[str, Digests] = {}
    for way in ways:
        note = ""
        if way == "ray":
            with two_nodes() as address:
                doing: Any = partial(by_actors, address=address, count=2)
                seen[way], seconds = done(table, out / way, doing)
        elif way == "killed":
            with killing(kills, (2.0, 8.0)) as killed:
                doing = partial(by_workers, devices=["cpu"] * 2)
                seen[way], seconds = done(table, out / way, doing)
            note = f", {len(killed)} workers killed"
        else:
            doing = partial(by_workers, devices=["cpu"] * int(way))
            seen[way], seconds = done(table, out / way, doing)
        rows, equal = len(seen[way]), seen[way] == seen[ways[0]]
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        print(
            f"{way}: {rows} rows, {rows / seconds:.2f} rows/s{note}, "
            f"{'equal' if equal else 'DIFFERENT'}, {memory:.0f} MB",
            flush=True,
        )
    return all(found == seen[ways[0]] for found in seen.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--ways", default="1,2,4,ray,killed")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--model", default="toybox")
    parser.add_argument("--out", type=Path, default=Path("build/batch"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    table = jobs(given.out / "jobs.jsonl", given.rows, given.model)
    if not compared(table, given.ways.split(","), given.out, given.kills):
        raise SystemExit("the results differ")


if __name__ == "__main__":
    main()
