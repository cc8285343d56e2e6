"""A batch: rows of a table, done by workers, into a folder of results; stopped, it can go on.

OUT/files/      what the rows made: KEY.png, or a folder
OUT/results/    one row of Parquet a row of the table (`results.py`)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from understudy.batch.local import Ended
from understudy.batch.places import Place, is_address
from understudy.batch.results import Results
from understudy.batch.table import count, rows
from understudy.batch.tasks import JobTemplate, Refused, Task, tasks
from understudy.errors import InputError, OutputError
from understudy.files.locks import held
from understudy.files.reading import MAX_JSON, parse_json
from understudy.jobs.events import Events, Finished, Progress, Result
from understudy.jobs.request import Job

FILES, RESULTS = "files", "results"
SHOWN_ERRORS = 3  # of failed rows, at the end; all are in the results
# Features of a source that one row leaves for the next change the rounding of the next.
DEFAULTS = {"swap": {"features": 0.0}}
Doing = Callable[[Iterator[Task], Callable[[Task], Job]], Iterator[Ended]]


@dataclass(frozen=True)
class Batch:
    """What is to be done. table, out: local paths or addresses. template: a JSON file.

    suffix: of pictures. threads: of torch in a worker on a CPU. scores: of `row.MEASURES`.
    """

    table: str
    out: str
    template: str | None = None
    suffix: str = ".png"
    threads: int = 1
    scores: tuple[str, ...] = ()

    def as_job(self, task: Task) -> Job:
        """The job of a worker for a row."""
        place = Place(self.out) / FILES
        inputs = {"task": task.to_json(), "results": place.text, "threads": self.threads}
        inputs |= {"out": str(place.local or FILES), "scores": list(self.scores)}
        return Job(verb="batch row", inputs=inputs)


def batch_steps(batch: Batch, doing: Doing) -> Events[Result]:
    """Do the rows that are not done yet; the result says how many are done and how many failed.

    doing: how tasks become outcomes: in this process, by worker processes, or by a cluster. Raises
    InputError for a table or template that cannot be read, OutputError for results that cannot be
    written, or that another process writes now.
    """
    begun, template = time.monotonic(), _template(batch.template)
    table, out = Place(batch.table), Place(batch.out)
    total = count(table)
    results = Results(out / RESULTS)
    with _alone(out):
        (out / RESULTS).check_writable()
        done = results.begin()
        state = _State(total, batch.out)
        planned = tasks(rows(table), template, suffix=batch.suffix, defaults=DEFAULTS)
        ended = doing(_wanted(planned, done, results, state), batch.as_job)
        try:
            with closing(ended):  # pyright: ignore[reportArgumentType]
                for task, outcome in ended:
                    if outcome.get("error_kind") == "Stopped":
                        continue
                    results.add(_row(task, outcome))
                    state.count(outcome["status"], task.key, outcome.get("error"))
                    yield state.progress()
        finally:
            results.flush()
    result = state.result()
    yield Finished("Batch", time.monotonic() - begun)
    yield result
    return result


@dataclass
class _State:
    """How far a batch is."""

    total: int
    out: str
    found: int = 0
    done: int = 0
    failed: int = 0
    began: float = field(default_factory=time.monotonic)
    errors: list[str] = field(default_factory=list)

    def count(self, status: str, key: str, error: str | None) -> None:
        """Count a row that has ended. Of the errors the first ones are kept, to be printed."""
        self.done += status == "done"
        self.failed += status == "failed"
        if status == "failed" and len(self.errors) < SHOWN_ERRORS:
            self.errors.append(f"{key}: {error}")

    def progress(self) -> Progress:
        """Rows a second, and the seconds left at that rate."""
        made, seconds = self.done + self.failed, time.monotonic() - self.began
        rate = made / max(seconds, 1e-3)
        left = (self.total - self.found - made) / rate
        phase = f"Batch, {rate:.2f} rows/s" + (f", {self.failed} failed" if self.failed else "")
        kept = f"Results are in {self.out}. To do the remaining rows, run the same command again."
        return Progress(phase, self.found + made - 1, self.total, left, kept=kept)

    def result(self) -> Result:
        values: dict[str, Any] = {"rows": self.total, "done": self.found + self.done}
        values |= {"found": self.found, "failed": self.failed, "out": self.out}
        line = f"{values['done']} of {self.total} rows are done, results are in {self.out}"
        if self.failed:
            line += f"; {self.failed} failed (see the column error; run the command again to retry)"
        more = self.failed - len(self.errors)
        rest = (f"and {more} more",) if more else ()
        return Result(values, (line, *self.errors, *rest))


def _wanted(
    planned: Iterator[Task | Refused], done: set[str], results: Results, state: _State
) -> Iterator[Task]:
    """The tasks that are not done; bad rows go into the results at once."""
    for one in planned:
        if one.key in done:
            state.found += 1
        elif isinstance(one, Task):
            yield one
        else:
            refused = {"status": "failed", "error": one.error, "error_kind": "InputError"}
            results.add({"index": one.index, "key": one.key, **refused})
            state.count("failed", one.key, one.error)


def _row(task: Task, outcome: dict[str, Any]) -> dict[str, Any]:
    return {
        **outcome,
        "index": task.index,
        "key": task.key,
        "verb": task.job.verb,
        "seed": task.job.seed,
    }


def _template(path: str | None) -> JobTemplate | None:
    if path is None:
        return None
    body = parse_json(Place(path).read(MAX_JSON), path)
    if not isinstance(body, dict):
        raise InputError(f"{path} must be a JSON object with verb, settings and inputs.")
    return JobTemplate(body)


@contextmanager
def _alone(out: Place) -> Generator[None]:
    """One process writes results; on another file system nobody can tell."""
    if is_address(out.text) and out.local is None:
        yield
        return
    folder = out.local or Path(out.text)
    with held(folder / ".lock", wait=False) as free:
        if not free:
            raise OutputError(
                f"Another batch writes into {folder} now. Wait, or give another --out."
            )
        yield
