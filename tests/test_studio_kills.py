"""kill -9 of server, worker and browser at random moments: every job ends once, nothing lost or
doubled. Memory of a server with many tabs, jobs and edits.

UNDERSTUDY_KILLS and UNDERSTUDY_EDITS make the tests shorter or longer.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from tests.studio_browser import Tab, Visit, chromium

pytest.importorskip("fastapi")
pytest.importorskip("multipart")
pytest.importorskip("httpx")

from studio_server import Server
from test_studio import png
from tiny import tiny_folder

KILLS = int(os.environ.get("UNDERSTUDY_KILLS", "30"))
EDITS = int(os.environ.get("UNDERSTUDY_EDITS", "500"))  # of the test of memory; 2/5 wait at once
LARGEST, GROWTH, TABS = 1200, 50.0, 20  # seconds; MB; tabs that are open


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
    tab = Tab(f"http://127.0.0.1:{server.port}/#generate", tmp_path / "browser")
    kills = {"server": 0, "worker": 0, "browser": 0}
    try:
        while sum(kills.values()) < KILLS:
            if chance.random() < 0.8:  # in the middle of a job; else at any moment
                at_work(server)
            time.sleep(chance.uniform(0.0, 2.0))
            drawn = chance.random()
            if drawn < 0.2:
                tab.kill()
                tab.open()
                kills["browser"] += 1
            elif drawn < 0.6:
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
        print(kills, [(row["verb"], row["attempts"]) for row in rows.values()])
    finally:
        tab.kill()
        server.close()


@pytest.mark.slow
def test_memory_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 tabs in a browser, 200 queued jobs and 500 small edits in one server."""
    monkeypatch.undo()
    server = served(tmp_path)
    server.start()
    photo = server.upload(png())
    run = {"run": {"model": "toy", "device": "cpu"}}
    settings = {"edit": {"method": "pnp", "steps": 1, "negative": ""}, **run}
    inputs = {"photo": photo, "prompt": "a cat", "to": ["a dog"], "region": "0,0,64,70"}
    batch = EDITS // 10

    def edits(many: int) -> list[str]:
        return [server.submit(verb="edit", settings=settings, inputs=inputs) for _ in range(many)]

    def finished() -> int:
        server.client.get("/api/gallery").raise_for_status()
        counts = server.client.get("/api/jobs?most=50").json()["counts"]
        assert not counts.get("failed")
        return counts.get("done", 0)

    try:
        with chromium() as browser:
            address = f"http://127.0.0.1:{server.port}/"
            context = browser.new_context()
            first = Visit(context.new_page(), address)
            first.open("edit")
            held = {"jobs": edits(batch)[-1:]}  # all tabs follow this job
            keep = "held => localStorage.setItem('understudy.edit', JSON.stringify(held))"
            first.page.evaluate(keep, held)
            tabs = [first] + [Visit(context.new_page(), address) for _ in range(TABS - 1)]
            for one in tabs:
                one.open("edit")
                one.page.reload()
            while finished() < batch:
                time.sleep(1)
            warm = server.memory()
            edits(4 * batch)
            queued = server.memory()
            more = 0
            while (done := finished()) < 11 * batch:
                waits = 5 * batch + more - done
                if more < 6 * batch and waits < 3 * batch:
                    edits(batch)
                    more += batch
                first.page.wait_for_timeout(1000)
            last = server.memory()
            assert not any(one.faults for one in tabs)
        print(
            f"{TABS} tabs, warm {warm:.0f} MB, {4 * batch} queued {queued:.0f} MB, "
            f"after {EDITS} edits {last:.0f} MB"
        )
        assert last - warm < GROWTH and queued - warm < GROWTH
    finally:
        server.close()
