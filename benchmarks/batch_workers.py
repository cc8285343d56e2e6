"""The same batch over 1, 2 and 4 workers and a Ray cluster of two nodes: are the results bit-equal?

    python -m benchmarks.batch_workers --rows 2000 --ways 1,2,4,ray,killed --out build/batch

Each row edits one of 40 photos by prompt-to-prompt in one step, with recipe, manifest and
watermark. `killed` is two workers of which --kills random ones are killed (SIGKILL) on the way.
Prints rows a second, processor seconds of the workers (where they are this process's own), and
memory of this process after a tenth of the rows and at the end. A way that is done is not done
again; one that was stopped goes on, and its rate is of the rows that were left.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from understudy.batch.batch import RESULTS, Batch, Doing, batch_steps
from understudy.batch.cluster import by_actors
from understudy.batch.local import by_workers
from understudy.batch.places import Place
from understudy.batch.results import read_results
from understudy.jobs.events import Progress, Result

PHOTOS = 40
COLOURS = "red green blue yellow white black pink purple orange brown".split()
ANIMALS = "cat dog bear rabbit elephant".split()

Digests = dict[str, tuple[int, tuple[str, ...]]]  # key -> seed, digests of the row's files


@dataclass
class Way:
    """How a batch went. rows: in the results. done: in the last call, in `seconds`.

    processor: seconds of the workers. early, late: MB of this process. largest: of a worker.
    """

    rows: int = 0
    done: int = 0
    seconds: float = 0.0
    processor: float = 0.0
    early: float = 0.0
    late: float = 0.0
    largest: float = 0.0
    killed: int = 0

    def __str__(self) -> str:
        killed = f", {self.killed} workers killed" if self.killed else ""
        return (
            f"{self.rows} rows, {self.done} of them now at {self.done / self.seconds:.2f} rows/s"
            f" ({self.processor:.0f} s of processor time){killed}, {self.early:.0f} -> "
            f"{self.late:.0f} MB, largest worker {self.largest:.0f} MB"
        )


def jobs(folder: Path, rows: int, model: str) -> str:
    """A table of `rows` edits of PHOTOS photos, made here."""
    from understudy.pictures.photo import write_pixels
    from understudy.toybox import render, sample_scene

    photos = [folder / f"photo-{k:02d}.png" for k in range(min(PHOTOS, rows))]
    for seed, photo in enumerate(photos):
        if not photo.is_file():
            write_pixels(photo, render(sample_scene(seed), 128).picture)
    settings = {
        "run": {"model": model, "device": "cpu"},
        "edit": {"method": "p2p", "steps": 1},
        "invert": {"method": "direct", "steps": 1},
    }
    lines = list[str]()
    for k in range(rows):
        colour, animal = COLOURS[k // PHOTOS % len(COLOURS)], ANIMALS[k % len(ANIMALS)]
        inputs = {"photo": str(photos[k % len(photos)]), "prompt": "a photo of a toy"}
        inputs |= {"to": [f"a photo of a {colour} {animal}"], "region": "full"}
        row = {"verb": "edit", "id": f"row-{k:05d}", "settings": settings, "inputs": inputs}
        lines.append(json.dumps(row))
    path = folder / "jobs.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@contextmanager
def killing(
    most: int, between: tuple[float, float], moved: Callable[[], object] = object
) -> Generator[list[int]]:
    """Kill `most` random worker processes of this one, one after another, inside the block.

    between: seconds from one to the next. moved: has another value before the next one is killed;
    on a busy machine, workers that are still starting would be killed over and over.
    """
    lot, stop, killed = random.Random(0), threading.Event(), list[int]()

    def kill() -> None:
        last: object = None
        while len(killed) < most and not stop.wait(lot.uniform(*between)):
            now = moved()
            living = [p.pid for p in multiprocessing.active_children() if p.pid and p.is_alive()]
            if living and now != last:
                last = now
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
def two_nodes() -> Generator[str]:
    """The address of a new Ray cluster of two nodes with one CPU each, on this machine."""
    # Ray gives way to all other programs by default; the other ways of this comparison do not.
    os.environ.setdefault("RAY_worker_niceness", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        cluster.add_node(num_cpus=1)
        yield str(cluster.address)
    finally:
        cluster.shutdown()


def done(table: str, out: Path, doing: Doing, way: Way) -> Way:
    """Do a batch, or what is left of it. The cache is the way's own: none finds another's work."""
    os.environ["UNDERSTUDY_CACHE"] = str(out / "cache")
    began, before = time.monotonic(), _processor()
    for event in batch_steps(Batch(table, str(out)), doing):
        if isinstance(event, Progress):
            way.done += 1
            if event.index + 1 == event.total // 10:
                way.early = memory()
        elif isinstance(event, Result):
            assert event.values["failed"] == 0, "rows failed"
    way.seconds, way.late = time.monotonic() - began, memory()
    way.processor = _processor() - before
    way.largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    return way


def memory() -> float:
    """MB that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def digests(out: Path) -> Digests:
    """What came of each row."""
    rows = read_results(Place(str(out)) / RESULTS)
    found = {row["key"]: (row["seed"], tuple(row["digests"])) for row in rows}
    assert len(rows) == len(found), "a row is there twice"
    missing = [name for row in rows for name in row["files"] if not (out / "files" / name).exists()]
    assert not missing, f"{len(missing)} files are missing"
    return found


def compared(table: str, ways: list[str], out: Path, kills: int) -> bool:
    """Do the batch in each way and print how it went; whether all results are equal."""
    first: Digests | None = None
    all_equal = True
    for name in ways:
        report = out / f"{name}.json"
        if report.is_file():
            way = Way(**json.loads(report.read_text()))
        else:
            way = _done_as(name, table, out / name, kills)
        found = digests(out / name)
        way.rows, first = len(found), found if first is None else first
        report.write_text(json.dumps(asdict(way)))
        all_equal &= found == first
        print(f"{name}: {way}, {'equal' if found == first else 'DIFFERENT'}", flush=True)
    return all_equal


def _done_as(name: str, table: str, out: Path, kills: int) -> Way:
    way = Way()
    if name == "ray":
        os.environ["UNDERSTUDY_CACHE"] = str(out / "cache")  # nodes take it when they start
        with two_nodes() as address:
            return done(table, out, partial(by_actors, address=address, count=2), way)
    hit: Callable[[], Any] = (
        partial(killing, kills, (2.0, 8.0), lambda: way.done) if name == "killed" else nullcontext
    )
    with hit() as killed:
        count = 2 if name == "killed" else int(name)
        done(table, out, partial(by_workers, devices=["cpu"] * count), way)
        way.killed = len(killed or ())
        return way


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--ways", default="1,2,4,ray,killed")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--model", default="toybox")
    parser.add_argument("--out", type=Path, default=Path("build/batch"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    table = jobs(given.out, given.rows, given.model)
    if not compared(table, given.ways.split(","), given.out, given.kills):
        raise SystemExit("the results differ")


if __name__ == "__main__":
    main()
