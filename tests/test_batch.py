"""A batch: rows become jobs, results do not depend on workers, order, kills or restarts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as arrow
import pytest
from pyarrow import parquet

import pictures
from benchmarks.batch_workers import killing
from tiny import tiny_folder
from understudy import cli
from understudy.batch.batch import Batch, batch_steps
from understudy.batch.local import by_workers, here
from understudy.batch.places import Place, fetched
from understudy.batch.results import Results, read_results
from understudy.batch.table import BadRow, count, rows
from understudy.batch.tasks import JobTemplate, Refused, Task, seed_of, tasks
from understudy.errors import InputError, OutputError
from understudy.jobs.events import Progress, Result, completed


def prompts(number: int, **more: Any) -> list[dict[str, Any]]:
    """Rows that generate tiny pictures in a single step."""
    on = {"model": str(tiny_folder("toy")), "device": "cpu"}
    settings = {"run": on, "generate": {"steps": 1, "guidance": 1.0}}
    settings |= {"mark": {"c2pa": "off", "watermark": "off"}}
    return [
        {"verb": "generate", "settings": settings, "inputs": {"prompt": f"a cat {k}"}, **more}
        for k in range(number)
    ]


def table(path: Path, found: list[Any]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in found))
    return str(path)


def digests(out: str) -> dict[str, tuple[int | None, str]]:
    found = read_results(Place(out) / "results")
    keys = [row["key"] for row in found]
    assert len(keys) == len(set(keys)), "a row is there twice"
    return {row["key"]: (row["seed"], row["digests"][0]) for row in found}


# Tables and tasks


def test_the_three_formats_say_the_same(tmp_path: Path) -> None:
    wanted = [
        {"verb": "swap", "settings": {"swap": {"steps": 20}}, "inputs": {"photo": "7.png",
         "swap": ["cat=rex"]}, "seed": 3},
        {"verb": "generate", "inputs": {"prompt": "a, \"b\""}},
    ]  # fmt: skip
    lines = table(tmp_path / "a.jsonl", wanted)
    (tmp_path / "a.csv").write_text(
        "verb,settings.swap.steps,inputs.photo,inputs.swap,inputs.prompt,seed\n"
        'swap,20,7.png,"[""cat=rex""]",,3\n'
        'generate,,,,"a, ""b""",\n'
    )
    flat = [
        {"verb": "swap", "settings.swap.steps": 20, "inputs.photo": "7.png",
         "inputs.swap": ["cat=rex"], "inputs.prompt": None, "seed": 3},
        {"verb": "generate", "settings.swap.steps": None, "inputs.photo": None,
         "inputs.swap": None, "inputs.prompt": "a, \"b\"", "seed": None},
    ]  # fmt: skip
    parquet.write_table(arrow.Table.from_pylist(flat), tmp_path / "a.parquet")
    for name in (lines, f"{tmp_path}/a.csv", f"file://{tmp_path}/a.parquet"):
        assert list(rows(Place(name))) == wanted, name
        assert count(Place(name)) == 2


def test_bad_lines_do_not_end_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"verb": "swap"}\n{oops\n[1]\n\n{"verb": "edit"}\n')
    found = list(rows(Place(str(tmp_path / "a.jsonl"))))
    assert [isinstance(row, BadRow) for row in found] == [False, True, True, False]
    assert "line 2" in str(found[1]) and "must be a JSON object" in str(found[2])
    (tmp_path / "a.csv").write_text("verb,seed\nswap,1,2,3\nswap\nedit,4\n")
    found = list(rows(Place(str(tmp_path / "a.csv"))))
    assert [isinstance(row, BadRow) for row in found] == [True, True, False]


@pytest.mark.parametrize(
    ("name", "told"),
    [("none.jsonl", "cannot be read"), ("a.txt", "one of .jsonl, .csv, .parquet"),
     ("bad.parquet", "as Parquet")],
)  # fmt: skip
def test_other_tables_are_refused(name: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=told):
        list(rows(Place(str(tmp_path / name))))


def test_keys_and_seeds_depend_on_content_alone() -> None:
    found = prompts(3)
    forward = {t.key: t for t in tasks(found) if isinstance(t, Task)}
    backward = {t.key: t for t in tasks(reversed(found)) if isinstance(t, Task)}
    assert {k: t.job for k, t in forward.items()} == {k: t.job for k, t in backward.items()}
    assert len({t.job.seed for t in forward.values()}) == 3
    assert all(t.job.seed == seed_of(t.key) for t in forward.values())
    first, second = (t for t in tasks([found[0], found[0]]))
    assert second.key == f"{first.key}-1"
    (given,) = tasks([{**found[0], "seed": 5, "id": "my-cat"}])
    assert isinstance(given, Task) and given.job.seed == 5
    assert given.job.inputs["out"] == "my-cat.png"


def test_type_hints_of_a_verb_are_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """To resolve them takes ten times as long as everything else that is done for a row."""
    list(tasks(prompts(1)))
    monkeypatch.setattr("understudy.jobs.request.get_type_hints", None)
    assert all(isinstance(one, Task) for one in tasks(prompts(3)))


def test_a_template_takes_columns_as_they_are() -> None:
    body = {"verb": "swap", "settings": {"swap": {"steps": "$steps"}},
            "inputs": {"photo": "$photo", "prompt": "a $noun in the {snow}",
                       "swap": ["$noun=rex"]}}  # fmt: skip
    row = {"photo": "a.png", "noun": "cat", "steps": 20, "id": "x"}
    (task,) = tasks([row], JobTemplate(body))
    assert isinstance(task, Task) and task.key == "x"
    assert task.job.settings["swap"]["steps"] == 20
    assert task.job.inputs["swap"] == ["cat=rex"]
    assert task.job.inputs["prompt"] == "a cat in the {snow}"
    assert task.job.seed is None  # a swap takes its seed for a picture instead of the photo
    (refused,) = tasks([{"photo": "a.png"}], JobTemplate(body))
    assert isinstance(refused, Refused) and "no column 'steps'" in refused.error


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"verb": "paint"}, "verb must be one of"),
        ({"verb": "rerun"}, "verb must be one of"),
        ({"verb": "generate", "colour": 1}, "no 'colour'"),
        ({"verb": "generate", "inputs": {"out": "x"}}, "set by the batch"),
        ({"verb": "generate", "out": "../x.png"}, "relative name"),
        ({"verb": "generate", "out": "/etc/x.png"}, "relative name"),
        ({"verb": "generate", "id": "a/b"}, "id must be"),
    ],
)
def test_bad_rows_say_what_is_wrong(row: dict, told: str) -> None:
    (refused,) = tasks([row])
    assert isinstance(refused, Refused) and told in refused.error


def test_ids_and_results_are_each_rows_own() -> None:
    one = prompts(1)[0]
    _, same_id = tasks([{**one, "id": "a"}, {**one, "id": "a"}])
    _, same_out = tasks([{**one, "out": "a.png"}, {**one, "out": "a.png", "id": "b"}])
    assert isinstance(same_id, Refused) and "has the id" in same_id.error
    assert isinstance(same_out, Refused) and "writes" in same_out.error
    bench = {"verb": "evaluate swap", "out": "bench"}  # shards share a folder
    assert all(isinstance(task, Task) for task in tasks([bench, {**bench, "id": "b"}]))


# Results


def outcome(key: str, status: str = "done", index: int = 0) -> dict[str, Any]:
    return {"index": index, "key": key, "status": status, "files": ["a.png"], "digests": ["d"]}


def test_results_begin_with_what_is_done_and_drop_what_failed(tmp_path: Path) -> None:
    folder = Place(str(tmp_path / "results"))
    first = Results(folder)
    assert first.begin() == set()
    for index, status in enumerate(("done", "failed", "done")):
        first.add(outcome(f"k{index}", status, index))
    first.flush()
    first.add(outcome("k3", "failed", 3))
    first.flush()
    again = Results(folder)
    assert again.begin() == {"k0", "k2"}
    assert len(folder.files(".parquet")) == 1  # nothing but failures was in the other
    again.add(outcome("k1", index=1))
    again.flush()
    assert [row["key"] for row in read_results(folder)] == ["k0", "k1", "k2"]
    assert parquet.read_table(tmp_path / "results").num_rows == 3  # what other programs read


def test_pictures_without_a_recipe_are_results_too(tmp_path: Path) -> None:
    """The sheets of an evaluation have none."""
    from understudy.batch.row import described

    pictures.save(tmp_path / "sheet-0.png", np.zeros((32, 32, 3), np.uint8))
    found = described(Result({}, files=(str(tmp_path / "sheet-0.png"),)), tmp_path)
    assert (found["status"], found["recipe"], found["files"]) == ("done", "", ["sheet-0.png"])


def test_places_of_other_file_systems(tmp_path: Path) -> None:
    place = Place("memory://batch-test/a") / "b.txt"
    place.write(b"hello")
    assert place.read() == b"hello" and place.local is None
    assert [one.name for one in Place("memory://batch-test/a").files(".txt")] == ["b.txt"]
    assert Place("memory://nowhere").files(".txt") == []
    copy = fetched(place.text, tmp_path)
    assert copy.read_bytes() == b"hello" and fetched(place.text, tmp_path) == copy
    place.remove()
    with pytest.raises(InputError, match="memory://batch-test/a/b.txt cannot be read"):
        place.read()
    for address in (
        "nosuch://x", "reference://x", "reference::memory://a.json", "simplecache::http://x",
        "zip://x::/etc/a.zip", "data:text/plain,://x", "local:///etc/passwd", "://x",
    ):  # fmt: skip
        with pytest.raises(InputError, match="cannot be opened: expected an address of s3, "):
            Place(address).read()


# Whole batches


def test_the_first_errors_are_printed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = [{"verb": "generate", "id": f"no-{number}"} for number in range(5)]
    words = ["batch", table(here / "jobs.jsonl", bad), "--out", "done", "--workers", "0"]
    assert cli.main(words) == 1
    first, *rest, more = capsys.readouterr().out.splitlines()
    assert first.startswith("0 of 5 rows are done") and more == "and 2 more"
    assert [line.partition(":")[0] for line in rest] == ["no-0", "no-1", "no-2"]
    assert all("needs 'prompt'" in line for line in rest)


def test_rows_bad_and_good_in_this_process(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    pictures.save(here / "photo.png", noise)
    fsspec.filesystem("memory").pipe("/given/photo.png", (here / "photo.png").read_bytes())
    on = {"run": prompts(1)[0]["settings"]["run"]}
    edit = {"verb": "edit", "settings": {**on, "edit": {"method": "p2p", "steps": 2}},
            "inputs": {"photo": "memory://given/photo.png", "prompt": "a cat",
                       "to": ["a dog"]}}  # fmt: skip
    edit["settings"]["invert"] = {"method": "direct", "steps": 2}
    found = [*prompts(2), edit, {"verb": "generate"}, "oops", {**edit, "inputs": {"photo": "no"}}]
    words = ["batch", table(here / "jobs.jsonl", found), "--out", "memory://results/one"]
    words += ["--workers", "0", "--score", "psnr", "--json"]
    assert cli.main(words) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["done"], told["failed"]) == (6, 3, 3)
    results = read_results(Place("memory://results/one/results"))
    assert [row["status"] for row in results] == ["done"] * 3 + ["failed"] * 3
    assert "needs 'prompt'" in results[3]["error"] and results[3]["error_kind"] == "InputError"
    assert "JSON object" in results[4]["error"]
    assert json.loads(results[2]["scores"]).keys() == {"psnr"}
    assert json.loads(results[0]["recipe"])["seed"] == results[0]["seed"]
    for row in results[:3]:
        assert fsspec.filesystem("memory").exists(f"/results/one/files/{row['files'][0]}")
    assert cli.main(words) == 1  # again: only what failed
    told = json.loads(capsys.readouterr().out)
    assert (told["found"], told["done"], told["failed"]) == (3, 3, 3)
    assert len(read_results(Place("memory://results/one/results"))) == 6


@pytest.mark.slow
def test_workers_order_stops_and_kills_change_nothing(here: Path) -> None:
    """One worker; two, in another order, stopped in the middle, and killed again and again."""
    found, two = prompts(24), partial(by_workers, devices=["cpu", "cpu"])
    one = Batch(table(here / "one.jsonl", found), str(here / "one"))
    completed(batch_steps(one, partial(by_workers, devices=["cpu"])))
    other = Batch(table(here / "two.jsonl", found[::-1]), str(here / "two"))
    events = batch_steps(other, two)
    for _ in range(5):
        next(events)
    events.close()
    with killing(6, (0.2, 1.2)) as killed:
        result = completed(batch_steps(other, two))
    assert killed and result.values["found"] >= 5
    assert (result.values["done"], result.values["failed"]) == (24, 0)
    assert digests(str(here / "one")) == digests(str(here / "two"))


@pytest.mark.slow
def test_a_cluster_of_two_nodes_gives_the_same(tmp_path: Path) -> None:
    """In a process of its own: the nodes of a cluster talk to each other."""
    words = [sys.executable, "-m", "benchmarks.batch_workers", "--rows", "8", "--ways", "1,ray"]
    words += ["--model", str(tiny_folder("toy")), "--out", str(tmp_path)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "ray: 8 rows" in ended.stdout and "equal" in ended.stdout.splitlines()[-1]


def test_two_batches_do_not_write_into_one_folder(here: Path) -> None:
    batch = Batch(table(here / "a.jsonl", prompts(2)), str(here / "out"))
    events = batch_steps(batch, _never)
    assert isinstance(next(events), Progress)
    with pytest.raises(OutputError, match="Another batch writes"):
        completed(batch_steps(batch, _never))
    events.close()
    assert len(read_results(Place(str(here / "out" / "results")))) == 1  # kept when stopped
    assert isinstance(completed(batch_steps(batch, _never)), Result)


def _never(listed: Iterator[Task], as_job: Any) -> Iterator[tuple[Task, dict[str, Any]]]:
    """Outcomes without work."""
    for task in listed:
        yield task, {"status": "done", "files": [], "digests": []}


def test_a_waiting_table_is_not_read_to_its_end() -> None:
    """Back-pressure: two tasks a worker are ahead of the outcomes, not the whole table."""
    taken = list[int]()

    def listed() -> Iterator[Task]:
        for task in tasks(prompts(50)):
            assert isinstance(task, Task)
            taken.append(task.index)
            yield task

    ended = by_workers(listed(), _no_job, ["cpu", "cpu"])
    for _ in range(3):
        _, found = next(ended)
        assert found["status"] == "failed"  # the worker does not know this job
    time.sleep(0.2)
    assert len(taken) <= 3 + 4
    ended.close()  # pyright: ignore[reportAttributeAccessIssue]


def test_a_task_that_cannot_become_a_job_has_an_outcome() -> None:
    """Somebody waits for each: a thread that ended without one would stop the batch for ever."""

    def fails(_: Task) -> Any:
        raise KeyError("prompt")

    listed = (task for task in tasks(prompts(3)) if isinstance(task, Task))
    found = [outcome for _, outcome in by_workers(listed, fails, ["cpu"])]
    assert [one["error_kind"] for one in found] == ["KeyError"] * 3


def _no_job(task: Task) -> Any:
    from understudy.jobs.request import Job

    return Job(verb="paint")


def test_here_is_the_same_as_workers_would_be() -> None:
    (task,) = tasks(prompts(1))
    assert isinstance(task, Task)
    ((same, found),) = here(iter([task]), _no_job)
    assert same is task and found["error_kind"] == "InputError"
