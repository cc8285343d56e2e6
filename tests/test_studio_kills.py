"""kill -9 of server and worker at random moments: every job ends once, nothing lost or doubled."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("multipart")
pytest.importorskip("httpx")

from studio_server import Server
from test_studio import png
from tiny import tiny_folder

KILLS, LARGEST, GROWTH = 30, 1200, 50.0  # kills; seconds; MB


def served(folder: Path) -> Server:
    data = folder / "data"
    (data / "models").mkdir(parents=True)
    shutil.copytree(tiny_folder("toy"), data / "models" / "toy")
    return Server(data)


def submitted(server: Server) -> dict[str, int]:
    """Jobs of several verbs -> how many files each makes."""
    photos = [server.upload(png(level), f"{level}.png") for level in (60, 120, 180)]
    run = {"run": {"model": "toy", "device": "cpu"}}
    jobs: dict[str, int] = {}
    for seed in range(4):
        settings = {"generate": {"steps": 60}, **run}
        inputs = {"prompt": "a cat", "count": 2}
        jobs[server.submit(verb="generate", settings=settings, inputs=inputs, seed=seed)] = 2
    learn = {"steps": 30, "prior_samples": 2, "prior_steps": 2, "save_every": 2}
    for name in ("rex", "mia"):
        inputs = {"photos": photos, "name": name, "class_noun": "cat"}
        jobs[server.submit(verb="learn", settings={"learn": learn, **run}, inputs=inputs)] = 0
    for photo in photos:
        inputs = {"photo": photo, "prompt": "a cat", "to": ["a dog"], "region": "0,0,64,70"}
        settings = {"edit": {"method": "pnp", "steps": 20, "negative": ""}, **run}
        jobs[server.submit(verb="edit", settings=settings, inputs=inputs)] = 1
    return jobs


def at_work(server: Server) -> None:
    """Wait until a worker lives and a job reports progress, or nothing is left to do."""
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        body = server.client.get("/api/jobs?state=running,queued").json()["jobs"]
        running = [one["id"] for one in body if one["state"] == "running"]
        pids = server.data / "workers.pid"
        if not body or (pids.is_file() and running and moved(server, running[0])):
            return
        time.sleep(0.1)


def moved(server: Server, job: str) -> bool:
    """Whether a job has reported progress since it was last queued."""
    text = server.client.get(f"/api/jobs/{job}").json()
    return text["progress"] is not None and text["last_event"] > 0


@pytest.mark.slow
def test_every_job_ends_once_however_often_server_and_worker_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # this test talks to its own server
    server, chance = served(tmp_path), random.Random(16)
    server.start()
    jobs = submitted(server)
    kills = {"server": 0, "worker": 0}
    try:
        while sum(kills.values()) < KILLS:
            if chance.random() < 0.8:  # in the middle of a job; else at any moment
                at_work(server)
            time.sleep(chance.uniform(0.0, 2.0))
            if chance.random() < 0.5:
                server.kill()
                server.start()
                kills["server"] += 1
            elif server.kill_worker():
                kills["worker"] += 1
        ends = time.monotonic() + LARGEST
        while server.client.get("/api/jobs").json()["counts"] != {"done": len(jobs)}:
            assert time.monotonic() < ends, server.client.get("/api/jobs").json()
            time.sleep(0.5)
        rows = {row["id"]: row for row in server.client.get("/api/jobs").json()["jobs"]}
        assert rows.keys() == jobs.keys()
        made: dict[str, int] = dict.fromkeys(jobs, 0)
        for item in server.client.get("/api/gallery?most=200").json()["items"]:
            made[item["job"]] += 1
            assert server.client.get(item["url"]).content[:4] == b"\x89PNG"
        assert made == jobs
        for job in jobs:
            told = server.client.get(f"/api/jobs/{job}/events").text
            assert told.count("event: result") == 1 and told.count('"state": "done"') == 1
        names = [one["id"] for one in server.client.get("/api/concepts").json()["concepts"]]
        assert names == ["mia", "rex", "toby"]
        print(kills, {row["verb"]: row["attempts"] for row in rows.values()})
    finally:
        server.close()


@pytest.mark.slow
def test_memory_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 queued jobs and 500 small edits in one server."""
    monkeypatch.undo()
    server = served(tmp_path)
    server.start()
    photo = server.upload(png())
    run = {"run": {"model": "toy", "device": "cpu"}}
    settings = {"edit": {"method": "pnp", "steps": 1, "negative": ""}, **run}
    inputs = {"photo": photo, "prompt": "a cat", "to": ["a dog"], "region": "0,0,64,70"}

    def edits(many: int) -> None:
        for _ in range(many):
            server.submit(verb="edit", settings=settings, inputs=inputs)

    def finished() -> int:
        server.client.get("/api/gallery").raise_for_status()
        counts = server.client.get("/api/jobs?most=50").json()["counts"]
        assert not counts.get("failed")
        return counts.get("done", 0)

    try:
        edits(50)
        while finished() < 50:
            time.sleep(1)
        warm = server.memory()
        edits(200)
        queued = server.memory()
        more = 0
        while (done := finished()) < 550:
            waits = 50 + 200 + more - done
            if more < 300 and waits < 150:
                edits(50)
                more += 50
            time.sleep(1)
        last = server.memory()
        print(f"warm {warm:.0f} MB, 200 queued {queued:.0f} MB, after 500 edits {last:.0f} MB")
        assert last - warm < GROWTH and queued - warm < GROWTH
    finally:
        server.close()
