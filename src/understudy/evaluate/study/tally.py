"""Counts votes: raters, majorities, agreement, and the papers' table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from understudy.evaluate.report import Report, Table
from understudy.evaluate.statistics import fleiss_kappa, majority
from understudy.evaluate.study.questions import Question, Study
from understudy.evaluate.study.votes import Vote

SAME = "same"
TRUSTED = 0.5  # the least share of repeats answered alike


@dataclass(frozen=True)
class Rater:
    """How one rater did on the questions whose answers are known, or were asked twice."""

    token: str
    votes: int
    catches: tuple[int, int]  # right, asked
    repeats: tuple[int, int]  # answered alike, asked

    @property
    def careless(self) -> bool:
        """Wrong on a catch question, or more often than not of another mind when asked again."""
        alike, asked = self.repeats
        return self.catches[0] < self.catches[1] or (asked > 0 and alike / asked < TRUSTED)


@dataclass(frozen=True)
class Score:
    """Of one pair of methods and one task: questions won by the first, undecided, lost; agreement.

    kappa is over the questions that all raters answered; NaN where there are none.
    """

    first: str
    second: str
    task: str
    wins: int
    ties: int
    losses: int
    kappa: float
    full: int  # questions with as many votes as there should be


def chosen(question: Question, answer: str) -> str:
    """The method that an answer is for, or "same"."""
    return question.methods.get(answer, SAME)


def raters(study: Study, votes: Sequence[Vote]) -> list[Rater]:
    """Every rater who said something."""
    found: list[Rater] = []
    for token in dict.fromkeys(vote.rater for vote in votes):
        own = [vote for vote in votes if vote.rater == token]
        said = {vote.question: vote.answer for vote in own}
        asked = [q for q in study.sheets[own[0].sheet] if q.id in said]
        by_id = {q.id: q for q in asked}
        catches = [said[q.id] == q.answer for q in asked if q.kind == "catch"]
        repeats = [
            chosen(q, said[q.id]) == chosen(by_id[q.of], said[q.of])
            for q in asked
            if q.kind == "repeat" and q.of in by_id
        ]
        counts = ((sum(catches), len(catches)), (sum(repeats), len(repeats)))
        found.append(Rater(token, len(own), *counts))
    return found


def scores(study: Study, votes: Sequence[Vote], *, keep_careless: bool = False) -> list[Score]:
    """The majority's word on each pair and task; careless raters are left out unless kept."""
    out = set() if keep_careless else {r.token for r in raters(study, votes) if r.careless}
    asked = {q.id: q for sheet in study.sheets for q in sheet if q.kind == "ask"}
    answers: dict[str, list[str]] = {}
    for vote in votes:
        if vote.question in asked and vote.rater not in out:
            question = asked[vote.question]
            answers.setdefault(question.id, []).append(chosen(question, vote.answer))
    groups: dict[tuple[str, str, str], list[list[str]]] = {}
    for name, said in answers.items():
        question = asked[name]
        first, second = sorted(question.methods.values())
        groups.setdefault((first, second, question.task), []).append(said)
    return [_score(key, said, study.raters) for key, said in sorted(groups.items())]


def _score(key: tuple[str, str, str], said: Sequence[Sequence[str]], wanted: int) -> Score:
    first, second, task = key
    words = Counter(majority(answers, SAME) for answers in said)
    full = [Counter(answers) for answers in said if len(answers) == wanted]
    kappa = fleiss_kappa(full) if wanted > 1 else math.nan
    return Score(first, second, task, words[first], words[SAME], words[second], kappa, len(full))


def report(study: Study, votes: Sequence[Vote], *, keep_careless: bool = False) -> Report:
    """The table of the papers: per cent won, undecided and lost, with the agreement beside it."""
    known = raters(study, votes)
    lines: list[list[str]] = []
    for s in scores(study, votes, keep_careless=keep_careless):
        count = s.wins + s.ties + s.losses
        shares = [f"{100 * n / count:.0f} %" for n in (s.wins, s.ties, s.losses)]
        kappa = "-" if math.isnan(s.kappa) else f"{s.kappa:.2f}"
        lines.append([s.task, s.first, s.second, *shares, str(count), str(s.full), kappa])
    heads = ["asked", "first", "second", "first", "undecided", "second", "questions"]
    heads += [f"with {study.raters} votes", "kappa"]
    left_out = [r for r in known if r.careless and not keep_careless]
    warnings = [
        f"A rater was left out: {r.catches[0]} of {r.catches[1]} catch questions right, "
        f"{r.repeats[0]} of {r.repeats[1]} repeats answered alike ({r.votes} votes)."
        for r in left_out
    ]
    asked = sum(q.kind == "ask" for sheet in study.sheets for q in sheet)
    heard = len({v.question for v in votes} & _ids(study))
    if heard < asked:
        warnings.append(f"{asked - heard} of {asked} questions have no vote yet.")
    return Report(
        title="What people say",
        intro=f"{len(known)} raters, {len(votes)} votes, {asked} questions in "
        f"{len(study.sheets)} sheets; the majority of the raters who look decides.",
        tables=[Table("Preferred", heads, lines)],
        warnings=warnings,
        conditions={"raters a question": study.raters, "careless kept": keep_careless},
        rows=_rows(study, votes),
    )


def _ids(study: Study) -> set[str]:
    return {q.id for sheet in study.sheets for q in sheet if q.kind == "ask"}


def _rows(study: Study, votes: Sequence[Vote]) -> list[dict[str, object]]:
    questions: Mapping[str, Question] = {q.id: q for sheet in study.sheets for q in sheet}
    names = {token: f"rater {k}" for k, token in enumerate(dict.fromkeys(v.rater for v in votes))}
    found: list[dict[str, object]] = []
    for vote in votes:
        q = questions[vote.question]
        row = {"rater": names[vote.rater], "kind": q.kind, "task": q.task, "case": q.case}
        found.append({**row, "left": q.methods["left"], "right": q.methods["right"],
                      "answer": vote.answer, "chosen": chosen(q, vote.answer)})  # fmt: skip
    return found
