"""A row of a table -> a task: the job, its key, its seed, and the name of its result."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from string import Template
from typing import Any, cast

from understudy.batch.table import BadRow, Row
from understudy.errors import InputError
from understudy.files.reading import parse_json
from understudy.jobs.request import FORMAT, Job, group_name, inputs_of, settings_of
from understudy.jobs.runner import verb_function

# Suffix of the result of a verb; "" for a folder.
SUFFIXES = {
    "swap": ".png", "sweep": ".png", "explain": ".png", "edit": ".png", "generate": ".png",
    "drag": ".png", "invert": ".inversion.safetensors", "project": ".latent.safetensors",
    "learn": "", "evaluate swap": "", "evaluate dreambooth": "", "evaluate drag": "",
    "evaluate cases": "",
}  # fmt: skip
PICTURES = (".png", ".jpg", ".webp")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_OUT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")


@dataclass(frozen=True)
class Task:
    """A row that can be run. index: of the row in its table, from 0. key: names the row in results.

    The job's `out` is relative to the folder of results.
    """

    index: int
    key: str
    job: Job

    def to_json(self) -> str:
        return json.dumps({"index": self.index, "key": self.key, "job": self.job.to_dict()})

    @classmethod
    def from_json(cls, text: str) -> Task:
        body: dict[str, Any] = parse_json(text, "a task")
        return cls(body["index"], body["key"], Job.from_dict(body["job"]))


@dataclass(frozen=True)
class Refused:
    """A row that is no job, and why."""

    index: int
    key: str
    error: str


@dataclass(frozen=True)
class JobTemplate:
    """A job with $column where a row's value goes, like {"inputs": {"photo": "$photo"}}.

    A text that is one placeholder alone takes the value as it is, a number or a list.
    """

    body: Mapping[str, Any]

    def filled(self, row: Row) -> Row:
        """The row as a job. Raises BadRow for a column that the row does not have."""
        found = cast(Row, _filled(self.body, row))
        for name in ("id", "out"):
            if name in row and name not in found:
                found[name] = row[name]
        return found


def tasks(
    rows: Iterable[Row | BadRow],
    template: JobTemplate | None = None,
    *,
    suffix: str = ".png",
    defaults: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Task | Refused]:
    """The rows as tasks, in order; a bad row as what is wrong with it.

    suffix: of pictures. defaults: group of settings -> values where a row does not give them.
    """
    seen: dict[str, int] = {}
    taken: set[str] = set()
    for index, row in enumerate(rows):
        key = ""
        try:
            if isinstance(row, BadRow):
                raise row
            body = template.filled(row) if template else dict(row)
            key = _key(body, seen)
            task = _task(index, key, body, suffix, defaults or {})
            out = str(task.job.inputs["out"])
            if out in taken and not task.job.verb.startswith("evaluate"):
                raise BadRow(f"another row writes {out!r} too. Use another id.")
            taken.add(out)
            yield task
        except InputError as error:
            yield Refused(index, key or f"row-{index}", str(error))


def _key(body: Row, seen: dict[str, int]) -> str:
    """The row's id, or its content's digest; equal rows are numbered."""
    given = body.get("id")
    if given is not None:
        if not _NAME.fullmatch(str(given)):
            raise BadRow(f"id must be letters, digits and . _ -, at most 100. Got {given!r}.")
        key = str(given)
        if key in seen:
            raise BadRow(f"another row has the id {key!r} too. Use another id.")
        seen[key] = 1
        return key
    text = json.dumps(body, sort_keys=True, ensure_ascii=False, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    number = seen.get(digest, 0)
    seen[digest] = number + 1
    return f"{digest}-{number}" if number else digest


def _task(
    index: int, key: str, body: Row, suffix: str, defaults: Mapping[str, Mapping[str, Any]]
) -> Task:
    """The job of a row, checked, with its seed and the name of its result."""
    job_body = {name: value for name, value in body.items() if name not in ("id", "out")}
    job = Job.from_dict({"format": FORMAT, **job_body})
    if job.verb not in SUFFIXES:
        raise BadRow(f"verb must be one of {', '.join(SUFFIXES)}. Got {job.verb!r}.")
    if "out" in job.inputs:
        raise BadRow("inputs.out is set by the batch. Use the column out or id instead.")
    ending = suffix if SUFFIXES[job.verb] == ".png" else SUFFIXES[job.verb]
    out = str(body.get("out", f"{key}{ending}"))
    if not _OUT.fullmatch(out) or ".." in out.split("/"):
        raise BadRow(f"out must be a relative name without '..'. Got {out!r}.")
    function = verb_function(job.verb)
    groups = {group_name(one.annotation) for one in settings_of(function).values()}
    settings = {name: dict(values) for name, values in job.settings.items()}
    for group, values in defaults.items():
        if group in groups or group in settings:
            settings[group] = {**values, **settings.get(group, {})}
    seed = job.seed
    wanted = inputs_of(function).get("seed")
    if seed is None and wanted is not None and wanted.annotation is int:
        seed = seed_of(key)
    return Task(index, key, replace(job, settings=settings, seed=seed,
                                    inputs={**job.inputs, "out": out}))  # fmt: skip


def seed_of(key: str) -> int:
    """The seed of a row that names none: of its key alone."""
    return int.from_bytes(hashlib.sha256(f"batch {key}".encode()).digest()[:4], "big") >> 1


def _filled(value: Any, row: Row) -> Any:
    if isinstance(value, dict):
        return {name: _filled(one, row) for name, one in cast(dict[str, Any], value).items()}
    if isinstance(value, list):
        return [_filled(one, row) for one in cast(list[Any], value)]
    if not isinstance(value, str):
        return value
    try:
        alone = re.fullmatch(r"\$(\w+)|\$\{(\w+)\}", value)
        if alone:
            return row[alone[1] or alone[2]]
        return Template(value).substitute(row)
    except KeyError as error:
        raise BadRow(f"the row has no column {error.args[0]!r}, which the template uses.") from None
    except ValueError as error:
        raise BadRow(f"the template's text {value!r} cannot be filled: {error}.") from None
