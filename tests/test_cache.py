"""The cache: bounded, safe with several processes, and forgetting a subject finds what is of it."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

import pictures
from apart import printed
from tiny import tiny_folder
from understudy import cli
from understudy.errors import InputError
from understudy.files import cache as store
from understudy.files.cache import Cache
from understudy.files.locks import held
from understudy.files.origins import Origin
from understudy.files.sizes import parse_age, parse_size, size_text


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def ran(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    capsys.readouterr()
    assert run(*words, "--json") == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def entry(root: Path, name: str, size: int, *origins: Origin, kind: str = "inversions") -> Path:
    """An entry of so many bytes, as every writer keeps it."""
    kept = Cache(root / kind, origins, bounded=True)
    kept.folder.mkdir(parents=True, exist_ok=True)
    with kept.making(name):
        (kept.folder / name).write_bytes(bytes(size))
        kept.kept(name)
    return kept.folder / name


def used(path: Path, seconds: float) -> None:
    os.utime(path.with_name(path.name + store.RECORD), (seconds, seconds))


def names(root: Path) -> list[str]:
    return [one.path.name for one in store.entries(root)]


def test_the_least_recently_used_entries_go_first(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(store.VARIABLE, "1000")
    for number, name in enumerate("abc"):
        used(entry(cache, name, 300), 1000.0 + number)
    Cache(cache / "inversions").used("a")  # was the oldest
    entry(cache, "d", 300)
    assert names(cache) == ["c", "a", "d"]  # 900 bytes: nine tenths of the limit
    assert not list((cache / "inversions").glob("b*")), "record and lock go with the entry"


def test_a_limit_of_nothing_keeps_only_what_is_in_hand(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(store.VARIABLE, "0")
    entry(cache, "a", 10)
    assert names(cache) == ["a"]
    entry(cache, "b", 10)
    assert names(cache) == ["b"]


def test_folders_count_with_all_their_files(cache: Path) -> None:
    folder = cache / "sources" / "key"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"step-{number}").write_bytes(bytes(100))
    Cache(cache / "sources", bounded=True).kept("key")
    assert [(one.kind, one.size) for one in store.entries(cache)] == [("sources", 300)]


def test_what_somebody_reads_or_makes_is_not_removed(cache: Path) -> None:
    for name in ("read", "made", "idle"):
        entry(cache, name, 10)
    kept = Cache(cache / "inversions")
    with kept.using("read"), kept.using("read"), kept.making("made"):
        cleared = store.clear(cache)
    assert sorted(one.path.name for one in cleared.busy) == ["made", "read"]
    assert names(cache) == ["made", "read"] or names(cache) == ["read", "made"]
    assert len(store.clear(cache).removed) == 2


def test_a_lock_that_was_removed_while_waited_for_is_taken_anew(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    with held(lock) as free:
        assert free
        lock.unlink()
        with held(lock, wait=False) as other:  # a new file: nobody holds it
            assert other
    with held(lock, shared=True), held(lock, wait=False) as free:
        assert not free


def test_processes_that_write_at_once_hold_the_limit(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(store.VARIABLE, "1000")
    assert printed("cache_writers.py", str(cache)) == [0, 0, 0]
    found = store.entries(cache)
    assert 500 <= sum(one.size for one in found) <= 1000
    # An entry may be counted twice by processes that write at once, and never missed.
    assert sum(one.size for one in found) <= int((cache / store.TOTAL).read_text()) <= 1000


def test_half_written_files_of_killed_processes_are_swept_after_a_day(cache: Path) -> None:
    entry(cache, "a", 10)
    for name in (".old.partial", ".new.partial", f"gone{store.RECORD}"):
        (cache / "inversions" / name).write_bytes(b"x")
    for name in (".old.partial", f"gone{store.RECORD}"):
        os.utime(cache / "inversions" / name, (0, 0))
    store.clear(cache, lambda one: False)
    left = {path.name for path in (cache / "inversions").iterdir()}
    assert ".new.partial" in left and ".old.partial" not in left
    assert f"gone{store.RECORD}" not in left and "a" in left


def test_origins_of_later_uses_join_the_record(cache: Path) -> None:
    path = entry(cache, "a", 10, Origin("photo", "x.png", "1"))
    Cache(cache / "inversions", (Origin("photo", "copy.png", "2"),)).used("a")
    (found,) = store.entries(cache)
    assert [one.name for one in found.made_from] == ["copy.png", "x.png"]
    path.with_name("a" + store.RECORD).write_text("{")  # damaged: an entry without a record
    (found,) = store.entries(cache)
    assert found.made_from == ()


@pytest.mark.parametrize(
    ("text", "size"),
    [("20GB", 20 * 10**9), ("1.5 m", 1_500_000), ("7", 7), ("0", 0), ("2kb", 2000)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "SIZE") == size


@pytest.mark.parametrize("text", ["", "much", "-1", "1e9", "5 PB"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="SIZE must be a size like 20GB"):
        parse_size(text, "SIZE")


def test_ages_and_sizes_for_people() -> None:
    assert (parse_age("30d", "x"), parse_age("12 hours", "x")) == (30 * 86400, 12 * 3600)
    with pytest.raises(InputError, match="--older-than must be an age"):
        parse_age("old", "--older-than")
    assert [size_text(n) for n in (12, 1200, 3.4e6, 2e10)] == [
        "12 bytes", "1.2 kB", "3.4 MB", "20.0 GB",
    ]  # fmt: skip


def test_show_limit_and_clear(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, name in (("inversions", "a"), ("inversions", "b"), ("classes", "c")):
        used(entry(cache, name, 100, kind=kind), time.time() - 3 * 86400)
    entry(cache, "new", 50)
    told = ran(capsys, "cache", "show", "--entries")
    assert told["size"] == 350 and told["kinds"]["inversions"] == {"entries": 3, "size": 250}
    assert len(told["entries"]) == 4
    assert ran(capsys, "cache", "limit", "1 GB")["limit"] == 10**9
    assert ran(capsys, "cache", "show")["limit"] == 10**9
    assert ran(capsys, "cache", "limit", "300")["limit"] == 300
    assert ran(capsys, "cache", "show")["size"] == 250  # trimmed at once
    gone = ran(capsys, "cache", "clear", "--older-than", "1d", "--kind", "classes", "--yes")
    assert gone["removed"] + len(store.entries(cache)) == 3
    assert ran(capsys, "cache", "clear", "--yes")["in_use"] == 0
    assert not store.entries(cache)
    monkeypatch.setenv(store.VARIABLE, "5kB")
    assert ran(capsys, "cache", "limit", "9kB")["limit"] == 5000
    assert run("cache", "clear", "--kind", "photos") == 2
    assert "--kind must be one of" in capsys.readouterr().err


def test_clear_asks_first(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry(cache, "a", 10)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert run("cache", "clear") == 2
    assert names(cache) == ["a"]


# Forgetting a subject


@pytest.fixture
def learnt(here: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """rex and mia learnt of the same class, photos of both inverted, rex swapped into one."""
    model = ["--model", tiny_folder("toy")]
    for seed, name in enumerate(("rex", "mia", "other")):
        (here / name).mkdir()
        for number in range(2):
            noise = np.random.default_rng([seed, number]).integers(0, 255, (64, 64, 3))
            pictures.save(here / name / f"{number}.png", noise.astype(np.uint8))
    for name in ("rex", "mia"):
        ran(capsys, "learn", name, "--class", "cat", "--name", name, "--steps", 1,
            "--prior-samples", 1, "--prior-steps", 1, "--consent", "permission",
            *model)  # fmt: skip
        assert ran(capsys, "concept", "show", name)["record"]["consent"] == "permission"
    for name in ("rex", "mia"):
        photo = sorted((here / name).glob("*.png"))[0]
        ran(capsys, "invert", photo, "--prompt", "a cat", "--steps", 2, *model)
    other = sorted((here / "other").glob("*.png"))[0]
    ran(capsys, "swap", other, "--prompt", "a cat", "--swap", "cat=rex", "--steps", 2,
        "--method", "direct", "--budget", 0, *model)  # fmt: skip
    return here


def kinds(root: Path) -> list[str]:
    return sorted(one.kind for one in store.entries(root))


def test_forget_wipes_a_subject_and_nothing_else(
    learnt: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = {path: path.read_bytes() for path in learnt.glob("*/*.png")}
    assert kinds(cache) == ["classes", "inversions", "inversions", "inversions", "sources"]
    told = ran(capsys, "forget", "rex", "--dry-run")
    assert kinds(cache) == ["classes", "inversions", "inversions", "inversions", "sources"]
    assert sorted(one["entry"].split("/")[0] for one in told["entries"]) == [
        "inversions", "inversions", "sources",
    ]  # fmt: skip
    assert [one["entry"].split("/")[0] for one in told["shared"]] == ["classes"]
    assert (learnt / "concepts" / "rex").is_dir()
    gone = ran(capsys, "forget", "rex", "--yes")
    assert gone["removed"] and not gone["in_use"]
    assert not (learnt / "concepts" / "rex").exists()
    assert kinds(cache) == ["classes", "inversions"]  # of mia
    assert {path: path.read_bytes() for path in photos} == photos
    assert run("forget", "rex", "--yes") == 2
    assert "There is no concept 'rex'" in capsys.readouterr().err

    # A concept that was removed before: what was cached is found by its name and the photos.
    ran(capsys, "concept", "remove", "mia", "--yes")
    left = ran(capsys, "forget", "mia", "--dry-run")
    assert [one["entry"].split("/")[0] for one in left["entries"]] == [
        "classes"
    ]  # no longer shared
    told = ran(capsys, "forget", "mia", "--photos", "other", "--photos", "mia", "--yes")
    assert len(told["entries"]) == 2 and told["concept"] is None
    assert kinds(cache) == []
