"""The studio's HTTP API on the built-in models: jobs, files, forms, errors."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("multipart")

from fastapi.testclient import TestClient
from PIL import Image

from tiny import tiny_folder
from understudy.errors import InputError
from understudy.jobs.events import Event, Progress, Result
from understudy.jobs.request import Job, group_name, inputs_of, path_inputs, settings_of
from understudy.jobs.runner import verb_function
from understudy.jobs.worker import Worker
from understudy.studio import verbs
from understudy.studio.app import create_app
from understudy.studio.bell import Bell
from understudy.studio.config import Config
from understudy.studio.database import Database, plain
from understudy.studio.queue import Queue
from understudy.studio.store import JobStore
from understudy.studio.wishes import split_swap

HOME = "http://127.0.0.1:8400"
STEPS = {"generate": {"steps": 2}, "run": {"model": "toy"}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studio")


@pytest.fixture(scope="module")
def client(data: Path) -> Iterator[TestClient]:
    folder = tiny_folder("toy")
    (data / "models").mkdir()
    (data / "models" / "toy").symlink_to(folder)
    with TestClient(create_app(Config(data=data)), base_url=HOME) as one:
        yield one


def png(colour: int = 120, size: tuple[int, int] = (64, 70)) -> bytes:
    stream = io.BytesIO()
    pixels = np.full((size[1], size[0], 3), colour, np.uint8)
    pixels[10:30, 10:30] = 255 - colour
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def upload(client: TestClient, content: bytes, name: str = "cat.png") -> dict[str, Any]:
    answer = client.post("/api/uploads", files={"file": (name, content)})
    assert answer.status_code == 201, answer.text
    return answer.json()


def ended(client: TestClient, job: str, seconds: float = 120) -> dict[str, Any]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        body = client.get(f"/api/jobs/{job}").json()
        if body["state"] in ("done", "failed", "cancelled"):
            return body
        time.sleep(0.05)
    raise AssertionError(f"{job} did not end: {body}")


def events(client: TestClient, job: str, **heads: str) -> list[tuple[str, str, Any]]:
    found: list[tuple[str, str, Any]] = []
    with client.stream("GET", f"/api/jobs/{job}/events", headers=heads) as answer:
        for part in "".join(answer.iter_text()).split("\n\n"):
            lines = dict(line.split(": ", 1) for line in part.splitlines() if ": " in line[1:])
            if "event" in lines:
                found.append((lines.get("id", ""), lines["event"], json.loads(lines["data"])))
    return found


@pytest.mark.parametrize("name", verbs.VERBS)
def test_the_table_of_verbs_is_what_the_functions_take(name: str) -> None:
    one, function = verbs.VERBS[name], verb_function(name)
    import inspect

    wanted, groups = inputs_of(function), settings_of(function)
    assert [group.annotation for group in groups.values()] == list(one.groups)
    inputs = wanted.keys() - {"seed"}
    ours = {single.name for single in one.inputs} | one.places.keys() | one.asked.keys()
    assert ours <= inputs
    unused = {"resume", "fresh", "clip_model", "dino_model", "landmarks", "tracker_weights"}
    unused |= {"device", "dtype", "tracker", "sam"}
    assert inputs - ours - unused <= (
        {"also", "out", "class_images"} if name in ("learn", "convert") else set()
    )
    assert one.seed == ("seed" in wanted)
    kinds = {verbs.PICTURE, verbs.PICTURES, verbs.LISTED, verbs.FILE}
    chosen = {"out", "file"} if name in ("learn", "convert") else set[str]()
    paths = {single.name for single in one.inputs if single.kind in kinds}
    assert (
        paths | one.places.keys() | one.asked.keys()
        == path_inputs(function) & (ours | inputs) - unused - chosen
    )
    needed = {n for n, p in wanted.items() if p.default is inspect.Parameter.empty}
    assert needed <= ours | chosen
    assert [group_name(kind) for kind in one.optional] in ([], ["invert"])


def test_forms_are_resolved_for_model_preset_and_method(client: TestClient) -> None:
    found = client.get("/api/verbs").json()["verbs"]
    assert set(found) == set(verbs.VERBS)
    swap = {s["name"]: s for s in found["swap"]["groups"][0]["settings"]}
    assert (
        swap["preset"]["choices"] == ["best", "paper", "official"] and swap["steps"]["value"] == 25
    )
    assert swap["negative"]["value"] == ""
    paper = client.get("/api/verbs/swap", params={"preset": "paper"}).json()
    values = {s["name"]: s["value"] for s in paper["groups"][0]["settings"]}
    assert values["self_output_steps"] == 5 and values["blend"] is False
    lora = client.get("/api/verbs/learn", params={"method": "lora", "model": "toy"}).json()
    values = {s["name"]: s["value"] for s in lora["groups"][0]["settings"]}
    assert values["method"] == "lora" and values["steps"] == 500
    marks = [s["name"] for s in found["swap"]["groups"][-1]["settings"]]
    assert "consent" in marks and "sign_key" not in marks
    assert client.get("/api/verbs/swap", params={"model": "/etc"}).status_code == 400
    assert client.get("/api/verbs/fly").status_code == 400


def test_a_job_from_form_to_gallery_and_again(client: TestClient) -> None:
    wish = {"verb": "generate", "settings": STEPS, "inputs": {"prompt": "a cat"}, "seed": 3}
    answer = client.post("/api/jobs", json=wish)
    assert answer.status_code == 201
    job = answer.json()["id"]
    body = ended(client, job)
    assert body["state"] == "done" and body["attempts"] == 1
    (file,) = body["result"]["files"]
    told = events(client, job)
    kinds = [kind for _, kind, _ in told]
    assert kinds[:2] == ["state", "state"] and kinds[-3:] == ["result", "state", "end"]
    numbers = [int(number) for number, _, _ in told if number]
    assert numbers == sorted(set(numbers))
    later = events(client, job, **{"last-event-id": str(numbers[-2])})
    assert [int(number) for number, _, _ in later if number] == numbers[-1:]
    shown = client.get(file["url"])
    assert shown.headers["content-type"] == "image/png" and shown.content[:4] == b"\x89PNG"
    assert client.get(file["thumb"]).headers["content-type"] == "image/jpeg"
    (first, *_) = client.get("/api/gallery").json()["items"]
    assert first["id"] == file["id"] and first["verb"] == "generate"
    recipe = client.get(f"/api/gallery/{file['id']}/recipe").json()
    assert recipe["form"]["inputs"] == {"prompt": "a cat", "concept": [], "count": 1} or (
        recipe["form"]["inputs"]["prompt"] == "a cat"
    )
    assert recipe["form"]["seed"] == 3
    dropped = client.post("/api/recipe", files={"file": ("x.png", shown.content)}).json()
    assert dropped["form"] == recipe["form"]
    again = client.post(f"/api/gallery/{file['id']}/rerun").json()["id"]
    assert again != job
    twice = ended(client, again)["result"]["files"][0]
    assert client.get(twice["url"]).content[-500:] == shown.content[-500:] or twice["width"] > 0
    assert str(client.get("/api/jobs").json()).find("studio0") == -1
    assert client.delete(f"/api/gallery/{file['id']}").status_code == 204
    assert client.get(file["url"]).status_code == 404
    assert client.delete(f"/api/jobs/{job}").status_code == 204
    assert client.get(f"/api/jobs/{job}").status_code == 404


def test_the_example_of_the_docs_runs(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parent.parent / "docs/how-to/studio.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    body = '"inputs": inputs}'
    assert body in code and len(code.splitlines()) <= 14
    quick = {
        "swap": {"steps": 2, "budget": 0, "guidance": 4.0},
        "invert": {"steps": 2, "guidance": 4.0},
    }
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("httpx.Client", lambda **_: client)
    # Of the model's size: no region of it is looked for, which takes longer than all else.
    Path("photo.png").write_bytes(png(size=(128, 128)))
    exec(code.replace(body, f'"inputs": inputs, "settings": {quick}}}'), {})
    assert Path("swapped.png").read_bytes()[:4] == b"\x89PNG"


def test_uploads_pass_the_photo_opener_only(client: TestClient) -> None:
    one = upload(client, png(), "My cat.png")
    assert (one["width"], one["height"], one["name"]) == (64, 70, "My cat.png")
    assert client.get(one["url"]).headers["content-type"] == "image/png"
    assert client.get(one["thumb"]).status_code == 200
    for content in (b"", b"<html>", b"\x89PNG\r\n\x1a\n" + bytes(50), png()[:120]):
        answer = client.post("/api/uploads", files={"file": ("bad.png", content)})
        assert answer.status_code == 400
        (line,) = answer.json().values()
        assert "bad.png" in line and "\n" not in line and "/" not in line
    assert client.post("/api/uploads").status_code == 422


def test_wrong_wishes_are_refused_with_one_line(client: TestClient) -> None:
    photo = upload(client, png())["id"]

    def said(code: int, **wish: Any) -> str:
        answer = client.post("/api/jobs", json=wish)
        assert answer.status_code == code, answer.text
        (line,) = answer.json().values()
        return line

    assert "needs prompt" in said(400, verb="generate")
    assert "has no 'out'" in said(400, verb="generate", inputs={"prompt": "a", "out": "/tmp/x"})
    assert "There is no such file" in said(
        404, verb="edit", inputs={"photo": "/etc/passwd", "prompt": "a", "to": ["b"]}
    )
    assert "no concept 'nobody'" in said(
        400, verb="swap", inputs={"photo": photo, "prompt": "a cat", "swap": ["cat=nobody"]}
    )
    assert "must be at least 1" in said(
        400, verb="generate", inputs={"prompt": "a"}, settings={"generate": {"steps": 0}}
    )
    assert "sign_key" in said(
        400, verb="generate", inputs={"prompt": "a"}, settings={"mark": {"sign_key": "/etc/shadow"}}
    )
    assert "no model" in said(
        400, verb="generate", inputs={"prompt": "a"}, settings={"run": {"model": "../../etc"}}
    )
    assert "extra" in said(422, verb="generate", more=1).lower()
    assert "verb must be" in said(400, verb="rm")


def test_a_job_that_cannot_be_done_fails_with_one_line(client: TestClient) -> None:
    photo = upload(client, png())["id"]
    inputs = {"photo": photo, "prompt": "a cat", "to": ["a dog"], "blend": "horse=dog"}
    wish = {"verb": "edit", "inputs": inputs, "settings": {"run": {"model": "toy"}}}
    body = ended(client, client.post("/api/jobs", json=wish).json()["id"])
    assert body["state"] == "failed" and "horse" in body["error"] and "\n" not in body["error"]


def test_pages_are_asked_for_again_after_an_update(client: TestClient) -> None:
    first = client.get("/js/api.js")
    assert first.headers["cache-control"] == "no-cache"
    again = client.get("/js/api.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.headers["cache-control"]) == (304, "no-cache")


def test_cancel_and_resume(client: TestClient) -> None:
    long = {"generate": {"steps": 900}, "run": {"model": "toy"}}
    wish = {"verb": "generate", "settings": long, "inputs": {"prompt": "a cat"}}
    first = client.post("/api/jobs", json=wish).json()["id"]
    second = client.post("/api/jobs", json={**wish, "settings": STEPS}).json()["id"]
    assert client.post(f"/api/jobs/{second}/cancel").json()["state"] == "cancelled"
    while client.get(f"/api/jobs/{first}").json()["progress"] is None:
        time.sleep(0.05)
    assert client.delete(f"/api/jobs/{first}").status_code == 400
    client.post(f"/api/jobs/{first}/cancel")
    assert ended(client, first)["state"] == "cancelled"
    client.post(f"/api/jobs/{second}/resume")
    assert ended(client, second)["state"] == "done"
    assert client.post(f"/api/jobs/{second}/resume").status_code == 400
    states = client.get("/api/jobs", params={"state": "cancelled"}).json()
    assert [job["id"] for job in states["jobs"]] == [first]


def test_a_page_that_missed_events_gets_the_last_preview_and_all_notes(tmp_path: Path) -> None:
    store = JobStore(Database(tmp_path / "jobs.sqlite"), Bell())
    one = store.add({"verb": "swap"})
    assert store.claim() and store.progress(one) is None
    for index, preview in enumerate(("", "first", "", "second", "", "")):
        body = {"phase": "Swapping", "index": index, "total": 9, "preview": preview}
        store.tell(one, "progress", body)
        store.tell(one, "note", {"text": f"note {index}"})
    told = [plain(body) for _, kind, body in store.events(one) if kind == "progress"]
    assert [(body["index"], body["preview"]) for body in told] == [(3, "second"), (5, "")]
    now = store.progress(one)
    assert now is not None and (now["index"], now["preview"]) == (5, "second")
    assert sum(kind == "note" for _, kind, _ in store.events(one)) == 6


def test_what_was_to_be_cancelled_stays_so_when_the_server_was_killed(tmp_path: Path) -> None:
    store = JobStore(Database(tmp_path / "jobs.sqlite"), Bell())
    ids = [store.add({"verb": "swap"}) for _ in range(3)]
    while store.claim():
        pass
    store.tell(ids[0], "cancelling", {})
    store.tell(ids[1], "cancelling", {})
    store.end(ids[1], "cancelled")
    store.resume(ids[1])
    while store.claim():
        pass
    store.recover("stopped", most=100)
    assert [store.get(one)["state"] for one in ids] == ["cancelled", "queued", "queued"]


def test_a_bell_that_rang_before_one_waited_is_heard() -> None:
    bell = Bell()

    async def hear() -> None:
        since = bell.rung
        bell.ring()  # between the look at the store and the wait
        await asyncio.wait_for(bell.wait(600, since), 60)

    asyncio.run(hear())


def test_the_first_step_of_each_phase_is_told(tmp_path: Path, client: TestClient) -> None:
    """Also within a fifth of a second after the step before: the next may take minutes."""
    queue, told = client.app.app.state.studio.queue, list[str]()  # type: ignore[attr-defined]

    class Swift(Worker):
        def run(self, job: Job, *, preview_every: int = 0) -> Iterator[Event]:
            for phase in ("Inverting", "Swapping"):
                yield from (Progress(phase, index, 9, None) for index in range(4))
            yield Result({})

    class Heard(JobStore):
        def tell(self, one: str, kind: str, body: dict[str, Any]) -> None:
            told.append(f"{body['phase']} {body['index']}")

    heard = Heard(Database(tmp_path / "jobs.sqlite"), Bell())
    Queue(heard, queue.files, queue.wishes, ())._follow(Swift(), "x", Job(verb="swap"))
    assert told == ["Inverting 0", "Swapping 0"]


@pytest.mark.parametrize(
    ("swap", "parts"),
    [("dog=toby", ("dog", "toby", "")), ("dog #2 = rex@step-000050 : 0.7",
     ("dog#2", "rex@step-000050", ":0.7"))],
)  # fmt: skip
def test_a_swap_may_have_a_strength(swap: str, parts: tuple[str, ...]) -> None:
    assert split_swap(swap) == parts


@pytest.mark.parametrize("swap", ["dog", "dog=", "dog=rex:", "dog=rex:much", "dog=rex:1:2"])
def test_odd_swaps_are_refused(swap: str) -> None:
    with pytest.raises(InputError, match="WORD=CONCEPT"):
        split_swap(swap)
