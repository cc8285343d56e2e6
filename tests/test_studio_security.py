"""What the studio lets in and out: token, Host, Origin, sizes, ids in the place of paths."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("multipart")

from fastapi.testclient import TestClient
from PIL import Image, PngImagePlugin
from starlette.websockets import WebSocketDisconnect

from test_odd_pictures import READ, REFUSED
from test_studio import HOME, png
from understudy.files.builtin import CONCEPTS
from understudy.pictures.recipe import KEY, Recipe
from understudy.studio import security
from understudy.studio.app import create_app
from understudy.studio.config import Config
from understudy.studio.server import Server, serve

TOKEN = "a-token-of-32-characters-or-so.."
CANARY = "canary-6d2f"
POLICY = "content-security-policy"


@contextmanager
def opened(folder: Path, **given: Any) -> Iterator[TestClient]:
    """A studio without its workers."""
    guard = create_app(Config(data=folder / "data", **given))
    try:
        yield TestClient(guard, base_url=HOME, follow_redirects=False)
    finally:
        guard.app.state.studio.stop()  # type: ignore[attr-defined]


def routes(client: TestClient) -> list[tuple[str, str]]:
    """Every method and path of the API and of the pages."""
    paths: dict[str, dict[str, Any]] = client.app.app.openapi()["paths"]  # type: ignore[attr-defined]
    found = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    return [*found, ("GET", "/"), ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/js/api.js")]


def test_every_route_wants_the_token(tmp_path: Path) -> None:
    with opened(tmp_path, host="0.0.0.0", token=TOKEN) as client:
        known = routes(client)
        assert len(known) > 35
        for method, path in known:
            answer = client.request(method, path.replace("{", "").replace("}", ""))
            assert answer.status_code == 401, (method, path)
            assert answer.headers[POLICY].startswith("default-src 'none'")
        for path in ("/api/drag/sessions/x", "/anything"):
            with pytest.raises(WebSocketDisconnect), client.websocket_connect(path):
                pass
        good = {"authorization": f"Bearer {TOKEN}"}
        assert client.get("/api/version", headers=good).json()["token"] is True
        page = client.get("/", headers={"accept": "text/html"})
        style = page.text.partition("<style>")[2].partition("</style>")[0]
        known = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert "password" in page.text and f"'sha256-{known}'" in page.headers[POLICY]
        assert '<p role="alert">' not in page.text


def test_a_login_gives_a_cookie_and_wrong_ones_have_to_wait(tmp_path: Path) -> None:
    with opened(tmp_path, host="0.0.0.0", token=TOKEN) as client:
        answer = client.post("/api/login", data={"token": TOKEN})
        assert answer.status_code == 303 and answer.headers["location"] == "/"
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie
        assert client.get("/api/version").status_code == 200  # the client keeps the cookie
        client.cookies.clear()
        name, _, stamp = cookie.split(";")[0].partition("=")
        for forged in (stamp[:-1] + ("0" if stamp[-1] != "0" else "1"), "9" + stamp, "", "x.y"):
            heads = {"cookie": f"{name}={forged}"}
            assert client.get("/api/version", headers=heads).status_code == 401
        assert client.get("/", params={"token": TOKEN}).status_code == 303
        client.cookies.clear()
        browser = {"accept": "text/html"}
        page = client.post("/api/login", data={"token": "<no>"}, headers=browser)
        assert page.status_code == 401 and 'role="alert">The token is wrong.' in page.text
        codes = [401]
        codes += [client.post("/api/login", data={"token": f"no{n}"}).status_code for n in range(6)]
        assert codes == [401] * security.TRIES + [429] * (7 - security.TRIES)
        assert client.post("/api/login", data={"token": TOKEN}).status_code == 429
        page = client.post("/api/login", data={"token": TOKEN}, headers=browser)
        assert page.status_code == 429 and "Wait a minute." in page.text
        bearer = {"authorization": "Bearer nonsense"}
        assert client.get("/api/version", headers=bearer).status_code == 429


def test_the_models_folder_is_told_to_this_machine_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as client:
        assert client.get("/api/models").json()["folder"] == str(tmp_path / "data" / "models")
    with opened(tmp_path, host="0.0.0.0", token=TOKEN) as client:
        found = client.get("/api/models", headers={"authorization": f"Bearer {TOKEN}"})
        assert found.json()["folder"] == "" and str(tmp_path) not in found.text


def test_the_address_that_is_printed_opens_on_this_machine(tmp_path: Path) -> None:
    for host, shown in (("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("192.0.2.7", "192.0.2.7")):
        config = Config(data=tmp_path, host=host, token=TOKEN)
        assert security.link(config, 8400) == f"http://{shown}:8400/?token={TOKEN}"


@pytest.mark.parametrize(
    "host",
    ["evil.example:8400", "127.0.0.1:1", "127.0.0.1", "evil.example", "127.0.0.1:8400@x", ""],
)
def test_other_hosts_are_refused(tmp_path: Path, host: str) -> None:
    with opened(tmp_path) as client:
        assert client.get("/api/version", headers={"host": host}).status_code == 403
        assert client.get("/api/version", headers={"host": "localhost:8400"}).status_code == 200


def test_pages_of_others_can_change_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as client:
        wish = {"verb": "generate", "inputs": {"prompt": "a cat"}}
        for heads in (
            {"origin": "http://evil.example"},
            {"origin": "null"},
            {"origin": "http://127.0.0.1:8401"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
        ):
            assert client.post("/api/jobs", json=wish, headers=heads).status_code == 403
            with pytest.raises(WebSocketDisconnect):
                with client.websocket_connect("/api/drag/sessions/x", headers=heads):
                    pass
        assert client.get("/api/jobs", headers={"sec-fetch-site": "cross-site"}).status_code == 403
        ours = {"origin": HOME, "sec-fetch-site": "same-origin"}
        assert client.post("/api/jobs", json=wish, headers=ours).status_code == 201


def test_a_request_without_a_body_may_name_the_type_of_one(tmp_path: Path) -> None:
    """As many HTTP clients do; the answer is the one without the name."""
    named = {"content-type": "application/json"}
    with opened(tmp_path) as client:
        known = [path for method, path in routes(client) if method == "GET"]
        assert len(known) > 15
        # A stream of events does not end by itself, of a job that is not there it does.
        for path in (path.replace("{", "").replace("}", "") for path in known):
            plain, answer = client.get(path), client.get(path, headers=named)
            assert answer.status_code == plain.status_code, path
        assert client.post("/api/jobs", headers=named).status_code == 422, "it needs a body"


def test_bodies_have_a_limit_whether_their_length_is_told_or_not(tmp_path: Path) -> None:
    with opened(tmp_path, max_upload=2**20, max_json=1000) as client:
        large = {"prompt": "x" * 2000}
        assert client.post("/api/jobs", json=large).status_code == 413
        chunks = (b" " * 600 for _ in range(4))
        assert client.post("/api/jobs", content=chunks).status_code == 413
        head = {"content-length": "-5"}
        assert client.post("/api/jobs", content=b"{}", headers=head).status_code == 400
        photo = {"file": ("a.png", bytes(2**20 + 10))}
        answer = client.post("/api/uploads", files=photo)
        assert answer.status_code == 400 and "1 MB" in answer.json()["error"]
        assert client.post("/api/uploads", files={"file": ("a.png", bytes(3 * 2**20))}).status_code
        assert not list((tmp_path / "data" / "files").iterdir())


def strings(folder: Path) -> list[str]:
    """What one would try to get at files by: at least 80."""
    targets = ("etc/passwd", "canary.txt", "studio.sqlite", "windows/win.ini")
    ups = ("../", "..%2f", "%2e%2e/", "..\\", "..%5c", "....//", "..%252f", "%c0%ae%c0%ae/")
    found = [up * depth + target for up in ups for depth in (1, 3, 8) for target in targets[:3]]
    found += [str(folder / "canary.txt"), f"/{folder}/canary.txt", f"file://{folder}/canary.txt"]
    found += ["/etc/passwd", "//etc/passwd", "%2fetc%2fpasswd", "~root", "~/.ssh/id_rsa", ".", ".."]
    found += ["", "%00", "a%00.png", "con", "C:\\windows\\win.ini", "a" * 300, "%0a", "*", "?x"]
    return found


def test_no_string_leads_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "canary.txt").write_text(CANARY)
    with opened(tmp_path) as client:
        known = routes(client)
        row = client.post("/api/uploads", files={"file": ("../../x.png", png())}).json()
        assert row["name"] == "x.png"
        tried = strings(tmp_path)
        assert len(tried) >= 80
        paths = [path for method, path in known if method == "GET" and "{" in path]
        assert len(paths) >= 9
        for path in [*paths, "/{static}", "/js/{static}"]:
            for text in tried:
                for said in {text, quote(text, safe="")}:
                    name = path[path.index("{") : path.index("}") + 1]
                    where = path.replace(name, said).replace("{step}", "1")
                    if where.rstrip("/").endswith(("/events", "/api/jobs")) or "{" in where:
                        continue
                    answer = client.get(HOME + where)
                    told = answer.text
                    assert CANARY not in told and "root:" not in told and "SQLite" not in told[:20]
                    assert answer.status_code < 500, where
                    assert str(tmp_path) not in told or text.startswith(("/", "file:")), where


@pytest.mark.parametrize(
    "wish",
    [
        {"verb": "edit", "inputs": {"photo": "{}", "prompt": "a", "to": ["b"]}},
        {"verb": "swap", "inputs": {"photo": "{}", "prompt": "a cat", "swap": ["cat={}"]}},
        {"verb": "generate", "inputs": {"prompt": "a", "concept": ["{}"]}},
        {"verb": "generate", "inputs": {"prompt": "a"}, "settings": {"run": {"model": "{}"}}},
        {"verb": "learn", "inputs": {"photos": ["{}"], "name": "x", "class_noun": "cat"}},
        {"verb": "learn", "inputs": {"photos": [], "name": "{}", "class_noun": "cat"}},
        {"verb": "drag", "inputs": {"generator": "{}", "points": "1,1>2,2"}, "seed": 1},
        {"verb": "drag", "inputs": {"latent": "{}", "points": "1,1>2,2"}},
        {"verb": "convert", "inputs": {"file": "{}"}},
    ],
)
def test_no_wish_names_a_path(tmp_path: Path, wish: dict[str, Any]) -> None:
    (tmp_path / "canary.txt").write_text(CANARY)

    def said(value: Any, text: str) -> Any:
        if isinstance(value, dict):
            return {key: said(one, text) for key, one in value.items()}
        if isinstance(value, list):
            return [said(one, text) for one in value]
        return value.replace("{}", text) if isinstance(value, str) else value

    with opened(tmp_path) as client:
        for text in (str(tmp_path / "canary.txt"), "../../canary.txt", "/etc", ".", "..", "a/b"):
            answer = client.post("/api/jobs", json=said(wish, text))
            assert answer.status_code in (400, 404), answer.text
            assert list(answer.json()) == ["error"]


def test_the_hub_is_never_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says: workers are started with this one."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")

    def ended(server: Server, sockets: list[socket.socket]) -> None:
        sockets[0].close()
        server.guard.app.state.studio.stop()  # type: ignore[attr-defined]

    monkeypatch.setattr(Server, "run", ended)
    serve(Config(data=tmp_path / "data", port=0), lambda line: None)
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_one_data_folder_has_one_server(tmp_path: Path) -> None:
    with opened(tmp_path):
        with pytest.raises(Exception, match="in use by another studio"), opened(tmp_path):
            pass


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    with opened(tmp_path) as client:
        for name in ("<img src=x onerror=alert(1)>.png", "a\r\nb.png", "..", "é日.png", "x.svg"):
            row = client.post("/api/uploads", files={"file": (name, io.BytesIO(png()))}).json()
            assert not set(row["name"]) & set('<>\r\n/\\"=')
            shown = client.get(row["url"])
            assert shown.headers["content-type"] == "image/png"
            assert shown.headers["x-content-type-options"] == "nosniff"


def test_odd_pictures_are_taken_or_refused_with_one_line(tmp_path: Path) -> None:
    with opened(tmp_path) as client:
        for kind, (make, word) in REFUSED.items():
            answer = client.post("/api/uploads", files={"file": ("a.png", make())})
            assert answer.status_code == 400, kind
            line = answer.json()["error"]
            assert word in line and "a.png" in line and line.isprintable(), kind
            assert str(tmp_path) not in line
        for kind, (make, wanted, _) in READ.items():
            row = client.post("/api/uploads", files={"file": ("a.png", make())}).json()
            assert (row["height"], row["width"]) == wanted.shape[:2], kind
            assert client.get(row["thumb"]).status_code == 200
        assert len(list((tmp_path / "data" / "files").iterdir())) == len(READ)


def test_recipes_that_were_altered_are_refused_with_one_line(tmp_path: Path) -> None:
    """Their job is of a wrong kind, or they hold numbers that JSON does not know."""
    job = {"format": 1, "verb": "swap", "settings": {"run": {"model": "toy"}}, "inputs": {}}
    recipes = [{"job": {**job, "inputs": 7}}, {"job": {**job, "settings": {"run": 3}}}]
    recipes += [{"job": {"verb": "swap"}}, {"job": {**job, "seed": "x" * 9_000}}]
    with opened(tmp_path) as client:
        for changed in recipes:
            answer = client.post("/api/recipe", files={"file": ("a.png", with_recipe(changed))})
            assert answer.status_code == 400 and len(answer.json()["error"]) < 300, changed
        odd = {"arguments": {"x": float("nan")}, "job": job}
        answer = client.post("/api/recipe", files={"file": ("a.png", with_recipe(odd))})
        assert answer.status_code == 200 and answer.json()["recipe"]["arguments"] == {"x": None}


def with_recipe(changed: dict[str, Any]) -> bytes:
    """A PNG with a recipe in it."""
    body = json.loads(Recipe(command="swap").to_json())
    info = PngImagePlugin.PngInfo()
    info.add_itxt(KEY, json.dumps({**body, **changed}))
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def test_errors_name_no_folder_of_the_server(tmp_path: Path) -> None:
    with opened(tmp_path) as client:
        row = client.post("/api/uploads", files={"file": ("cat.png", png())}).json()
        error = client.get(f"/api/gallery/{row['id']}/recipe").json()["error"]
        assert error.startswith("cat.png has no recipe") and str(tmp_path) not in error


def test_no_result_names_a_folder_of_the_server(tmp_path: Path) -> None:
    """`explain` tells its concepts by their paths: built-in ones, and those of other folders."""
    mine, models = tmp_path / "mine", tmp_path / "models"
    with opened(tmp_path, concepts=(mine,), models=(models,)) as client:
        scrubbed = client.app.app.state.studio.queue.scrubbed_data  # type: ignore[attr-defined]
        places = {
            f"dog={CONCEPTS}/toby": "dog=toby",
            f"dog={mine}/rex/checkpoints/step-000100": "dog=rex/checkpoints/step-000100",
            f"{models}/sd15 is not complete.": "sd15 is not complete.",
            f"{tmp_path}/data/jobs/1/out/a.png": "jobs/1/out/a.png",
            f"{tmp_path}/data cannot be written.": "the data folder cannot be written.",
            f"{tmp_path}/database": f"{tmp_path}/database",
            f"{Path.home()}/.cache/huggingface": ".cache/huggingface",
        }
        assert scrubbed({"swap": list(places), "n": 3}) == {"swap": [*places.values()], "n": 3}


def test_json_that_cannot_be_sent_back_is_refused(tmp_path: Path) -> None:
    """Half a character would be stored, and every later answer with it would fail."""
    heads = {"content-type": "application/json"}
    with opened(tmp_path) as client:
        for body in ('{"verb": "generate", "inputs": {"prompt": "\\ud800"}}', "[" * 5_000, "{"):
            answer = client.post("/api/jobs", content=body, headers=heads)
            assert answer.status_code == 400 and answer.json()["error"].isprintable(), body[:50]
        assert client.get("/api/jobs").json()["jobs"] == []
