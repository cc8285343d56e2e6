"""The study with people: blind, kept through kills, counted right; in a browser if one is there."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from understudy.errors import InputError, OutputError
from understudy.evaluate.results import add_row
from understudy.evaluate.study.contests import contests
from understudy.evaluate.study.questions import Contest, Question, Study, make, read
from understudy.evaluate.study.server import VOTES, StudyServer
from understudy.evaluate.study.tally import raters, report, scores
from understudy.evaluate.study.votes import Votes
from understudy.pictures.photo import texts, write_pixels
from understudy.settings.evaluate import StudySettings

METHODS = ("method-of-ada", "method-of-bob")
TASKS = ("subject", "background", "overall")
WISH = StudySettings(per_sheet=12, repeats=2, catches=2, seed=3)


def flat(level: int) -> np.ndarray:
    return np.full((24, 24, 3), level, np.uint8)


def toys(count: int = 6) -> list[Contest]:
    """Cases whose pictures are plain greys, each another."""
    return [
        Contest(
            case=f"case-{n}", subject=f"s{n}", references=(flat(n), flat(n + 20)),
            results={METHODS[0]: flat(n + 40), METHODS[1]: flat(n + 60)},
            good=flat(n + 80), source=flat(n + 100),
        )
        for n in range(count)
    ]  # fmt: skip


@pytest.fixture
def study(tmp_path: Path) -> Path:
    make(tmp_path / "study", toys(), TASKS, WISH)
    return tmp_path / "study"


def test_questions_are_blind_balanced_and_the_same_for_a_seed(study: Path, tmp_path: Path) -> None:
    found = read(study)
    assert len(found.sheets) == 2 and [len(sheet) for sheet in found.sheets] == [16, 10]
    asked = [q for sheet in found.sheets for q in sheet if q.kind == "ask"]
    assert len(asked) == 18 and {q.task for q in asked} == set(TASKS)
    sides = [q.methods["left"] for q in asked]
    assert 3 <= sides.count(METHODS[0]) <= 15
    assert make(tmp_path / "again", toys(), TASKS, WISH) == found
    # What a rater may see says nothing of methods, and pictures carry no recipe.
    for sheet in found.sheets:
        for question in sheet:
            shown = json.dumps(question.shown())
            assert not any(word in shown for word in (*METHODS, "good", "wrong", "catch", "case"))
    pictures = list((study / "pictures").iterdir())
    assert not any(texts(file)[0] for file in pictures)
    with pytest.raises(OutputError, match="already has a study"):
        make(study, toys(), TASKS, WISH)


def test_repeats_change_sides_and_catches_have_answers(study: Path) -> None:
    for sheet in read(study).sheets:
        by_id = {q.id: q for q in sheet}
        repeats = [q for q in sheet if q.kind == "repeat"]
        catches = [q for q in sheet if q.kind == "catch"]
        assert len(repeats) == len(catches) == 2
        for q in repeats:
            first = by_id[q.of]
            assert (q.left, q.right, q.task) == (first.right, first.left, first.task)
            assert q.methods["left"] == first.methods["right"]
        assert all(q.methods[q.answer] == "good" for q in catches)


def test_too_little_to_ask_and_damage_are_named(tmp_path: Path) -> None:
    lone = Contest("a", "s", (), {"one": flat(0)}, flat(1))
    with pytest.raises(InputError, match="two methods"):
        make(tmp_path, [lone], TASKS, WISH)
    with pytest.raises(InputError, match="not a study"):
        read(tmp_path)
    (tmp_path / "study.json").write_text('{"format": 1, "raters": 3, "sheets": [[{}]]}')
    with pytest.raises(InputError, match="damaged"):
        read(tmp_path)
    (tmp_path / "study.json").write_text('{"format": 9}')
    with pytest.raises(InputError, match="format 9"):
        read(tmp_path)


Mind = Callable[[Question], str]


def prefers(method: str) -> Mind:
    """Somebody who looks: right on catch questions, else always for one method."""
    return lambda q: q.answer or next(side for side, m in q.methods.items() if m == method)


def wanders(seed: int) -> Mind:
    luck = random.Random(seed)
    return lambda q: luck.choice(("left", "right"))


def answered(votes: Votes, mind: Mind) -> str:
    token = votes.join()
    while (question := votes.next(token)[1]) is not None:
        votes.vote(token, question.id, mind(question))
    return token


def test_the_tally_is_what_was_said(study: Path) -> None:
    found = read(study)
    votes = Votes(study / VOTES, found)
    # Two for Ada and one for Bob on each of both sheets; joining fills the emptier sheet.
    for mind in (prefers(METHODS[0]),) * 4 + (prefers(METHODS[1]),) * 2:
        answered(votes, mind)
    assert all(vote.sheet in (0, 1) for vote in votes.all())
    for score in scores(found, votes.all()):
        assert (score.first, score.second) == METHODS
        assert (score.wins, score.ties, score.losses, score.full) == (6, 0, 0, 6)
        # Closed form: 2 of 3 agree everywhere; P = 1/3, chance = (2/3)^2 + (1/3)^2 = 5/9.
        assert score.kappa == pytest.approx((1 / 3 - 5 / 9) / (1 - 5 / 9))
    table = report(found, votes.all())
    assert table.tables[0].lines[0][3:6] == ["100 %", "0 %", "0 %"] and not table.warnings
    assert len(table.rows) == len(votes.all()) == 3 * 26


def test_careless_raters_are_found_and_left_out(study: Path) -> None:
    found = read(study)
    votes = Votes(study / VOTES, found)
    good = [answered(votes, prefers(METHODS[0])) for _ in range(2)]
    always_left = answered(votes, lambda q: "left")
    known = {rater.token: rater for rater in raters(found, votes.all())}
    assert not any(known[token].careless for token in good)
    assert known[always_left].careless and known[always_left].repeats == (0, 2)
    heard = {s.task: s for s in scores(found, votes.all())}
    assert all(s.losses == 0 for s in heard.values())
    kept = scores(found, votes.all(), keep_careless=True)
    assert sum(s.losses + s.ties for s in kept) > 0
    assert any("left out" in warning for warning in report(found, votes.all()).warnings)


def test_ties_and_missing_votes(study: Path) -> None:
    found = read(study)
    votes = Votes(study / VOTES, found)
    token = votes.join()
    question = next(q for q in found.sheets[0] if q.kind == "ask")
    votes.vote(token, question.id, "same")
    (score,) = scores(found, votes.all())
    assert (score.wins, score.ties, score.losses) == (0, 1, 0) and math.isnan(score.kappa)
    assert report(found, votes.all()).warnings == ["17 of 18 questions have no vote yet."]
    votes.vote(token, question.id, "left")  # changed their mind
    assert [vote.answer for vote in votes.all()] == ["left"]
    for wrong in (
        ("nobody", question.id, "left"),
        (token, "none", "left"),
        (token, question.id, "x"),
    ):
        with pytest.raises(InputError):
            votes.vote(*wrong)


# Served


@contextmanager
def served(folder: Path) -> Iterator[str]:
    with StudyServer(folder, port=0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def ask(url: str, said: Any = None, **headers: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    data = None if said is None else said if isinstance(said, bytes) else json.dumps(said).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            body, status, heads = reply.read(), reply.status, dict(reply.headers)
    except urllib.error.HTTPError as error:
        body, status, heads = error.read(), error.code, dict(error.headers)
        error.close()
    is_json = heads["Content-Type"] == "application/json"
    return status, json.loads(body) if is_json else {"bytes": body}, heads


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, offline: None) -> None:
    """These tests speak to this machine alone."""
    monkeypatch.undo()


def test_the_server_gives_questions_and_takes_votes(study: Path, online: None) -> None:
    with served(study) as base:
        page, code, style = (ask(base + path) for path in ("/", "/page.js", "/page.css"))
        assert [reply[0] for reply in (page, code, style)] == [200] * 3
        assert page[2]["Content-Security-Policy"].startswith("default-src 'none'")
        assert b"http" not in b"".join(reply[1]["bytes"] for reply in (page, code, style))
        token = ask(base + "/begin", {})[1]["rater"]
        state = ask(f"{base}/ask/{token}")[1]
        assert state["done"] == 0 and state["total"] in (16, 10)
        assert (
            ask(base + "/pictures/" + state["question"]["left"])[2]["Content-Type"] == "image/png"
        )
        said = {"question": state["question"]["id"], "answer": "left", "seconds": 3}
        assert ask(f"{base}/ask/{token}", said)[1]["done"] == 1
        # Whatever else is asked for is refused, and says nothing of methods.
        refused = {
            "/study.json": 404, "/pictures/../study.json": 404, "/votes.sqlite": 404,
            "/ask/nobody-at-all": 400, "/pictures/00000000000000000000.png": 404,
        }  # fmt: skip
        for path, status in refused.items():
            code, body, _ = ask(base + path)
            assert code == status and METHODS[0] not in json.dumps(body, default=str)
        for body in (b"[]", b"nonsense", b"[" * 4000, b"x" * 5000, {"question": "x"}):
            assert ask(f"{base}/ask/{token}", body)[0] == 400
        foreign = ask(f"{base}/ask/{token}", said, Origin="http://elsewhere.example")
        assert foreign[0] == 403
    assert len(Votes(study / VOTES, read(study)).all()) == 1


def test_votes_survive_a_killed_server(study: Path, online: None) -> None:
    code = (
        "import sys; from pathlib import Path; from understudy.evaluate.study.server import "
        "StudyServer; s = StudyServer(Path(sys.argv[1]), port=0); "
        "print(s.server_address[1], flush=True); s.serve_forever()"
    )

    def start() -> tuple[subprocess.Popen[str], str]:
        words = [sys.executable, "-c", code, str(study)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process, f"http://127.0.0.1:{int(process.stdout.readline())}"

    token, kept = "", 0
    for round in range(2):
        process, base = start()
        try:
            token = token or ask(base + "/begin", {})[1]["rater"]
            assert ask(f"{base}/ask/{token}")[1]["done"] == kept
            for _ in range(3):
                question = ask(f"{base}/ask/{token}")[1]["question"]["id"]
                said = {"question": question, "answer": "right"}
                kept = ask(f"{base}/ask/{token}", said)[1]["done"]
            process.kill()  # at once after the last reply
            process.wait()
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        assert kept == 3 * (round + 1)
    assert len(Votes(study / VOTES, read(study)).all()) == 6


def test_results_become_contests(tmp_path: Path) -> None:
    from test_swapbench import run

    run(tmp_path / "run", ["right-answer", "no-swap", "copy-paste"], limit=2)
    found, tasks = contests(tmp_path / "run")
    assert tasks == TASKS and [c.case for c in found] == ["000-single", "001-multi"]
    assert set(found[0].results) == {"no-swap", "copy-paste"} and len(found[0].references) == 4
    made: Study = make(tmp_path / "study", found, tasks, StudySettings(catches=0))
    assert sum(q.kind == "ask" for sheet in made.sheets for q in sheet) == 6
    with pytest.raises(InputError, match="two methods"):
        contests(tmp_path / "run", "no-swap")
    with pytest.raises(InputError, match="--methods must be among"):
        contests(tmp_path / "run", "no-swap,none")


@pytest.mark.parametrize(
    "place", ["/etc/hosts", "../secret.png", "pictures/../../secret.png", "link.png"]
)
def test_rows_name_no_picture_outside_their_folder(tmp_path: Path, place: str) -> None:
    write_pixels(tmp_path / "secret.png", flat(9))
    folder = tmp_path / "run"
    (folder / "pictures").mkdir(parents=True)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    said = {"bench": {"name": "x", "version": "1"}, "methods": {"a": {}, "b": {}}, "side": 32}
    (folder / "run.json").write_text(json.dumps(said))
    for method in ("a", "b"):
        add_row(folder / "rows.jsonl", {"method": method, "case": "1", "seed": 1, "picture": place})
    with pytest.raises(InputError, match="which is not in"):
        contests(folder)


# In a real browser

EITHER = "!document.getElementById('ask').hidden || !document.getElementById('end').hidden"
LOADED = "[...document.images].filter(i => i.offsetParent).every(i => i.complete && i.naturalWidth)"
WAITING = "document.getElementById('trouble').textContent.includes('Not saved')"


def until(page: Any, true: str) -> None:
    """Wait for something to be true on the page, whose policy forbids Playwright's own way."""
    for _ in range(1200):
        if page.evaluate(true):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never became true: {true}")


@pytest.mark.slow
def test_three_raters_in_chromium(
    study: Path, online: None, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A phone, a desk, a keyboard; the server is killed in the middle; no vote is lost."""
    playwright = pytest.importorskip("playwright.sync_api")
    words = [sys.executable, "-m", "understudy.cli", "evaluate", "study", "serve", str(study)]
    port = random.Random().randint(20000, 40000)

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen([*words, "--port", str(port)], stdout=subprocess.DEVNULL)
        for _ in range(600):
            try:
                ask(f"http://127.0.0.1:{port}/")
                return process
            except OSError:
                time.sleep(0.1)
        pytest.fail("the server did not start")

    shots = Path(os.environ.get("UNDERSTUDY_SHOTS", tmp_path))
    shots.mkdir(parents=True, exist_ok=True)
    found = read(study)
    by_id = {q.id: q for sheet in found.sheets for q in sheet}
    process, asked, killed = start(), list[str](), False
    request.addfinalizer(lambda: (process.kill(), process.wait()))
    sizes = {"phone": (390, 844), "desk": (1280, 800), "keys": (1280, 800)}
    with playwright.sync_playwright() as p:
        path = os.environ.get("UNDERSTUDY_CHROMIUM")
        try:
            browser = p.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium to drive: {error}")
        for name, (width, height) in sizes.items():
            phone = name == "phone"
            size = {"width": width, "height": height}
            context = browser.new_context(viewport=size, has_touch=phone, is_mobile=phone)
            page = context.new_page()
            page.on("request", lambda request: asked.append(request.url))
            page.goto(f"http://127.0.0.1:{port}/")
            page.screenshot(path=shots / f"{name}-start.png")
            begin = page.locator("#begin")
            if name == "keys":
                page.keyboard.press("Tab")
                page.keyboard.press("Enter")
            else:
                begin.tap() if phone else begin.click()
            page.wait_for_url("**/r/*")
            sheet = 0
            for step in range(100):
                until(page, EITHER)
                if page.locator("#end").is_visible():
                    break
                until(page, LOADED)
                current = page.evaluate("question.id")
                sheets = enumerate(found.sheets)
                sheet = next(k for k, s in sheets if any(q.id == current for q in s))
                if step in (0, 1):
                    page.screenshot(path=shots / f"{name}-{step}.png")
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, f"{name} scrolls sideways"
                if step == 3 and not killed:
                    process.kill()
                    process.wait()
                side = prefers(METHODS[0])(by_id[current])
                if name == "keys":
                    page.keyboard.press("ArrowLeft" if side == "left" else "2")
                else:
                    button = page.locator(f"button[data-answer={side}]")
                    button.tap() if phone else button.click()
                if step == 3 and not killed:
                    until(page, WAITING)
                    page.screenshot(path=shots / f"{name}-killed.png")
                    process, killed = start(), True
                if step == 5 and name == "desk":
                    until(page, f"question.id !== '{current}'")
                    page.goto(page.url)  # comes back by the link
                until(page, f"!question || question.id !== '{current}'")
            page.screenshot(path=shots / f"{name}-end.png")
            assert page.locator("#end").is_visible() and sheet in (0, 1)
            context.close()
        browser.close()
    process.kill()
    process.wait()
    votes = Votes(study / VOTES, found).all()
    joined = [vote.sheet for vote in votes]
    per_rater = {v.rater: v.sheet for v in votes}
    assert len(per_rater) == 3
    assert len(joined) == sum(len(found.sheets[s]) for s in per_rater.values())
    home = (f"http://127.0.0.1:{port}/", "data:,")
    assert killed and not [url for url in asked if not url.startswith(home)]
    heard = scores(found, votes)
    assert all(s.ties == s.losses == 0 for s in heard) and sum(s.wins for s in heard) == 18
