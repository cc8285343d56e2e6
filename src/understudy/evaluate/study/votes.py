"""Votes in SQLite: written to disk before the next question is shown.

Raters are random words and nothing else: no name, no address, no browser.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.errors import InputError, OutputError, sentence
from understudy.evaluate.study.questions import Question, Study

ANSWERS = ("left", "right", "same")
TABLES = """
CREATE TABLE IF NOT EXISTS raters (token TEXT PRIMARY KEY, sheet INTEGER NOT NULL, joined REAL);
CREATE TABLE IF NOT EXISTS votes (
    rater TEXT NOT NULL REFERENCES raters(token), question TEXT NOT NULL, answer TEXT NOT NULL,
    seconds REAL, at REAL, PRIMARY KEY (rater, question)
);
"""


@dataclass(frozen=True)
class Vote:
    """One rater's answer ("left", "right", "same") to one question."""

    rater: str
    sheet: int
    question: str
    answer: str


@dataclass(frozen=True)
class Votes:
    """The votes of one study, in one file."""

    path: Path
    study: Study

    def join(self) -> str:
        """A new rater, for the sheet that has the fewest; returns the word of their link."""
        token = secrets.token_urlsafe(12)
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            counts = dict(db.execute("SELECT sheet, COUNT(*) FROM raters GROUP BY sheet"))
            sheet = min(range(len(self.study.sheets)), key=lambda s: (counts.get(s, 0), s))
            db.execute("INSERT INTO raters VALUES (?, ?, ?)", (token, sheet, time.time()))
        return token

    def sheet(self, token: str) -> int:
        """The sheet of a rater. Raises InputError for a word that is none of ours."""
        with self._open() as db:
            row = db.execute("SELECT sheet FROM raters WHERE token = ?", (token,)).fetchone()
        if row is None:
            raise InputError("This link does not belong to a rater of this study.")
        return int(row[0])

    def vote(self, token: str, question: str, answer: str, seconds: float = 0.0) -> None:
        """Keep an answer; a second one to the same question replaces the first."""
        sheet = self.sheet(token)
        if answer not in ANSWERS or self.study.question(sheet, question) is None:
            raise InputError(f"A vote must be {', '.join(ANSWERS)}, for a question of this sheet.")
        row = (token, question, answer, seconds, time.time())
        with self._open() as db:
            db.execute("INSERT OR REPLACE INTO votes VALUES (?, ?, ?, ?, ?)", row)

    def answered(self, token: str) -> dict[str, str]:
        """What a rater said so far: question -> answer."""
        with self._open() as db:
            found = db.execute("SELECT question, answer FROM votes WHERE rater = ?", (token,))
            return {str(q): str(a) for q, a in found}

    def next(self, token: str) -> tuple[int, Question | None]:
        """How many questions a rater has answered, and the next one; None after the last."""
        questions, done = self.study.sheets[self.sheet(token)], self.answered(token)
        left = [question for question in questions if question.id not in done]
        return len(questions) - len(left), left[0] if left else None

    def all(self) -> list[Vote]:
        """Every vote, in the order of raters and questions."""
        words = (
            "SELECT rater, sheet, question, answer FROM votes JOIN raters ON rater = token "
            "ORDER BY rater, question"
        )
        with self._open() as db:
            rows = list(db.execute(words))
        return [self._checked(*row) for row in rows]

    def _checked(self, rater: Any, sheet: Any, question: Any, answer: Any) -> Vote:
        """A row of the file, which may hold values of any type. Raises InputError."""
        whole = isinstance(sheet, int) and 0 <= sheet < len(self.study.sheets)
        known = whole and self.study.question(sheet, question) is not None
        if not known or not isinstance(rater, str) or answer not in ANSWERS:
            raise InputError(f"{self.path} holds votes that do not belong to this study.")
        return Vote(rater, sheet, question, answer)

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        """A connection of one's own; committed at the end, and on the disk then."""
        try:
            with closing(sqlite3.connect(self.path, timeout=30)) as db:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
                db.executescript(TABLES)
                with db:
                    yield db
        except sqlite3.Error as error:
            raise OutputError(f"{self.path} cannot be used: {sentence(error)}") from error
