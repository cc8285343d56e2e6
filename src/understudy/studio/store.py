"""Jobs and their events on disk. A job's end and its results are one transaction."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Any

from understudy.errors import InputError
from understudy.studio.bell import Bell
from understudy.studio.database import Database, plain

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
STATES = (QUEUED, RUNNING, DONE, FAILED, CANCELLED)
ENDED = (DONE, FAILED, CANCELLED)
PAGE = 100  # jobs of one answer
_FIELDS = "id, number, verb, state, created, started, ended, attempts, error, result"
# All but the newest progress, and the newest with a preview.
_OLD_PROGRESS = """
    DELETE FROM events WHERE job = :job AND kind = 'progress'
    AND n < (SELECT MAX(n) FROM events WHERE job = :job AND kind = 'progress')
    AND n IS NOT (SELECT MAX(n) FROM events WHERE job = :job AND kind = 'progress'
                  AND json_extract(body, '$.preview') <> '')
"""


def new_id() -> str:
    """An id that cannot be guessed: 20 hexadecimal digits."""
    return secrets.token_hex(10)


class JobStore:
    """Jobs in the order they were asked for."""

    def __init__(self, database: Database, bell: Bell) -> None:
        self.database, self.bell = database, bell

    def add(self, wish: dict[str, Any]) -> str:
        """Queue what the page asked for; the new job's id."""
        one = new_id()
        with self.database.change() as line:
            line.execute(
                "INSERT INTO jobs (id, number, verb, wish, state, created) VALUES "
                "(?, (SELECT COALESCE(MAX(number), 0) + 1 FROM jobs), ?, ?, ?, ?)",
                (one, wish["verb"], json.dumps(wish), QUEUED, time.time()),
            )
            _tell(line, one, "state", {"state": QUEUED})
        self.bell.ring()
        return one

    def get(self, one: str) -> dict[str, Any]:
        """A job with what was asked for. Raises LookupError."""
        row = self.database.one(f"SELECT {_FIELDS}, wish FROM jobs WHERE id = ?", (one,))
        if row is None:
            raise LookupError("There is no such job.")
        return {**_job(row), "wish": plain(row["wish"])}

    def list(
        self, states: Sequence[str] = (), after: int = 0, most: int = PAGE
    ) -> list[dict[str, Any]]:
        """Jobs, the newest first. after: of those with a smaller number only (0: all)."""
        unknown = set(states) - set(STATES)
        if unknown:
            raise InputError(f"state must be one of {', '.join(STATES)}. Got {min(unknown)!r}.")
        where, values = ["1"], list[Any]()
        if states:
            where.append(f"state IN ({', '.join('?' * len(states))})")
            values += states
        if after:
            where.append("number < ?")
            values.append(after)
        question = (
            f"SELECT {_FIELDS}, wish FROM jobs WHERE {' AND '.join(where)} "
            "ORDER BY number DESC LIMIT ?"
        )
        rows = self.database.all(question, [*values, min(max(most, 1), 500)])
        return [{**_job(row), "wish": plain(row["wish"])} for row in rows]

    def claim(self) -> dict[str, Any] | None:
        """The oldest queued job, now running; None without any."""
        with self.database.change() as line:
            row = line.execute(
                "SELECT id FROM jobs WHERE state = ? ORDER BY number LIMIT 1", (QUEUED,)
            ).fetchone()
            if row is None:
                return None
            one = str(row["id"])
            line.execute(
                "UPDATE jobs SET state = ?, started = ?, attempts = attempts + 1, error = NULL "
                "WHERE id = ?",
                (RUNNING, time.time(), one),
            )
            _tell(line, one, "state", {"state": RUNNING})
        self.bell.ring()
        return self.get(one)

    def tell(self, one: str, kind: str, body: dict[str, Any]) -> None:
        """Keep an event of a running job. Progress replaces the progress before it, and a preview
        the preview before it: a page that missed events gets the last of both."""
        with self.database.change() as line:
            _tell(line, one, kind, body)
            if kind == "progress":  # after the new one is there, so that no number is used twice
                line.execute(_OLD_PROGRESS, {"job": one})
        self.bell.ring()

    def events(self, one: str, after: int = 0) -> list[tuple[int, str, str]]:
        """Number, kind and JSON of a job's events after a number."""
        rows = self.database.all(
            "SELECT n, kind, body FROM events WHERE job = ? AND n > ? ORDER BY n", (one, after)
        )
        return [(row["n"], row["kind"], row["body"]) for row in rows]

    def progress(self, one: str) -> dict[str, Any] | None:
        """The last progress of a job, with the last preview; None before any."""
        found = [plain(body) for _, kind, body in self.events(one) if kind == "progress"]
        if not found:
            return None
        return {**found[-1], "preview": found[-1]["preview"] or found[0]["preview"]}

    def asked_to_cancel(self, one: str) -> bool:
        """Whether somebody asked to cancel the job since it was last resumed."""
        asked = [kind for _, kind, _ in self.events(one) if kind in ("cancelling", "resumed")]
        return asked[-1:] == ["cancelling"]

    def end(
        self,
        one: str,
        state: str,
        *,
        error: str | None = None,
        result: dict[str, Any] | None = None,
        files: Iterable[dict[str, Any]] = (),
    ) -> None:
        """The end of a job with its results, at once; a job that has ended stays as it ended."""
        with self.database.change() as line:
            found = line.execute("SELECT state FROM jobs WHERE id = ?", (one,)).fetchone()
            if found is None or found["state"] in ENDED:
                return
            for file in files:
                insert_file(line, {**file, "job": one})
            told = None if result is None else json.dumps(result)
            line.execute(
                "UPDATE jobs SET state = ?, ended = ?, error = ?, result = ? WHERE id = ?",
                (state, time.time(), error, told, one),
            )
            if result is not None:
                _tell(line, one, "result", result)
            said = {"state": state, **({"error": error} if error else {})}
            _tell(line, one, "state", said)
        self.bell.ring()

    def back(self, one: str, note: str = "") -> None:
        """A running job is queued again, to go on from what it kept."""
        with self.database.change() as line:
            _requeue(line, one, note)
        self.bell.ring()

    def recover(self, note: str, most: int) -> list[str]:
        """After a start: jobs that a stopped server left running are queued again, or given up
        after `most` attempts; those that were to be cancelled are. Their ids."""
        rows = self.database.all("SELECT id, attempts FROM jobs WHERE state = ?", (RUNNING,))
        for row in rows:
            if self.asked_to_cancel(row["id"]):
                self.end(row["id"], CANCELLED)
            elif row["attempts"] >= most:
                self.end(
                    row["id"],
                    FAILED,
                    error=f"It was interrupted {most} times. Press Resume to try again.",
                )
            else:
                self.back(row["id"], note)
        return [row["id"] for row in rows]

    def resume(self, one: str) -> None:
        """Queue a job again that failed or was cancelled. Raises LookupError, InputError."""
        state = self.get(one)["state"]
        if state not in (FAILED, CANCELLED):
            raise InputError(f"Only a failed or cancelled job can be resumed. This one is {state}.")
        with self.database.change() as line:
            _tell(line, one, "resumed", {})
            _requeue(line, one, "resumed.")
            line.execute(
                "UPDATE jobs SET ended = NULL, error = NULL, attempts = 0 WHERE id = ?", (one,)
            )
        self.bell.ring()

    def cancel_queued(self, one: str) -> bool:
        """Cancel a job that waits; whether it did."""
        with self.database.change() as line:
            changed = line.execute(
                "UPDATE jobs SET state = ?, ended = ? WHERE id = ? AND state = ?",
                (CANCELLED, time.time(), one, QUEUED),
            ).rowcount
            if changed:
                _tell(line, one, "state", {"state": CANCELLED})
        self.bell.ring()
        return bool(changed)

    def delete(self, one: str) -> None:
        """Forget a job that has ended. Raises LookupError, InputError."""
        if self.get(one)["state"] not in ENDED:
            raise InputError("This job has not ended. Cancel it first.")
        with self.database.change() as line:
            line.execute("DELETE FROM jobs WHERE id = ?", (one,))
        self.bell.ring()

    def counts(self) -> dict[str, int]:
        """How many jobs there are in each state."""
        rows = self.database.all("SELECT state, COUNT(*) AS many FROM jobs GROUP BY state")
        return {row["state"]: row["many"] for row in rows}


def insert_file(line: Any, file: dict[str, Any]) -> None:
    """Put a file into the table of files, inside a transaction."""
    line.execute(
        "INSERT INTO files (id, number, kind, name, place, sha256, width, height, notes, created, "
        "job) VALUES (?, (SELECT COALESCE(MAX(number), 0) + 1 FROM files), ?, ?, ?, ?, ?, ?, ?, "
        "?, ?)",
        (
            file["id"],
            file["kind"],
            file["name"],
            file["place"],
            file["sha256"],
            file["width"],
            file["height"],
            json.dumps(file.get("notes", [])),
            time.time(),
            file.get("job"),
        ),
    )


def _tell(line: Any, one: str, kind: str, body: dict[str, Any]) -> None:
    """Add an event. Its number is one more than the last; the last event is never removed."""
    line.execute(
        "INSERT INTO events (job, n, kind, body) VALUES (?, "
        "(SELECT COALESCE(MAX(n), 0) + 1 FROM events WHERE job = ?), ?, ?)",
        (one, one, kind, json.dumps(body)),
    )


def _requeue(line: Any, one: str, note: str) -> None:
    line.execute("UPDATE jobs SET state = ? WHERE id = ?", (QUEUED, one))
    if note:
        _tell(line, one, "note", {"text": note})
    _tell(line, one, "state", {"state": QUEUED})


def _job(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the page sees it."""
    found = {k: v for k, v in row.items() if k != "wish"}
    found["result"] = None if row["result"] is None else plain(row["result"])
    return found
