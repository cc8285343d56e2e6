"""One SQLite database in WAL mode, shared by the threads of one server."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from understudy.errors import OutputError

FORMAT = 1
SCHEMA = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, number INTEGER NOT NULL, verb TEXT NOT NULL, wish TEXT NOT NULL,
    state TEXT NOT NULL, created REAL NOT NULL, started REAL, ended REAL,
    attempts INTEGER NOT NULL DEFAULT 0, error TEXT, result TEXT
);
CREATE INDEX jobs_by_state ON jobs (state, number);
CREATE UNIQUE INDEX jobs_by_number ON jobs (number);
CREATE TABLE events (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    n INTEGER NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (job, n)
) WITHOUT ROWID;
CREATE TABLE files (
    id TEXT PRIMARY KEY, number INTEGER NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
    place TEXT NOT NULL, sha256 TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    notes TEXT NOT NULL, created REAL NOT NULL,
    job TEXT REFERENCES jobs (id) ON DELETE SET NULL
);
CREATE INDEX files_by_kind ON files (kind, number);
CREATE UNIQUE INDEX files_by_number ON files (number);
CREATE INDEX files_by_hash ON files (sha256);
CREATE INDEX files_by_job ON files (job);
CREATE TABLE drags (id TEXT PRIMARY KEY, created REAL NOT NULL, body TEXT NOT NULL);
CREATE TABLE preferences (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


def plain(text: str) -> Any:
    """The value of a JSON column, which this program wrote."""
    return json.loads(text)


class Database:
    """A connection behind a lock; every change is one transaction."""

    def __init__(self, file: Path) -> None:
        """Open the database, made if need be. Raises OutputError for one of a newer version."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        try:
            self._line = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
            self._line.row_factory = sqlite3.Row
            self._line.execute("PRAGMA journal_mode = WAL")
            self._line.execute("PRAGMA synchronous = NORMAL")
            self._line.execute("PRAGMA foreign_keys = ON")
            self._line.execute("PRAGMA busy_timeout = 5000")
            self._line.execute("PRAGMA cache_size = -2000")
            self._prepare(file)
        except sqlite3.Error as error:
            raise OutputError(f"{file} cannot be opened: {error}. Move it away.") from error

    def _prepare(self, file: Path) -> None:
        (version,) = self._line.execute("PRAGMA user_version").fetchone()
        if version == FORMAT:
            return
        if version:
            raise OutputError(f"{file} has format {version}; this version reads {FORMAT}. Update.")
        script = f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;"
        self._line.executescript(script)

    def all(self, question: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The rows of a query."""
        with self._lock:
            return [dict(row) for row in self._line.execute(question, values)]

    def one(self, question: str, values: Sequence[Any] = ()) -> dict[str, Any] | None:
        """The first row of a query, None without any."""
        with self._lock:
            row = self._line.execute(question, values).fetchone()
        return None if row is None else dict(row)

    @contextmanager
    def change(self) -> Generator[sqlite3.Connection]:
        """A transaction: all of it is kept, or nothing."""
        with self._lock:
            self._line.execute("BEGIN IMMEDIATE")
            try:
                yield self._line
            except BaseException:
                self._line.execute("ROLLBACK")
                raise
            self._line.execute("COMMIT")

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._line.close()
