"""The study server under many voters, malformed requests and pages of other sites."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from understudy.evaluate.study import server as served_by
from understudy.evaluate.study.hosts import opened, serves
from understudy.evaluate.study.questions import Study
from understudy.evaluate.study.server import StudyServer
from understudy.evaluate.study.votes import Votes


def no_study(folder: Path) -> Study:
    return Study.__new__(Study)


def a_word(self: Votes) -> str:
    return "a-word-of-a-rater"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None) -> Iterator[StudyServer]:
    monkeypatch.undo()  # these tests connect to this machine
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(served_by, "read", no_study)
        patch.setattr(Votes, "join", a_word)
        with StudyServer(tmp_path, port=0) as one:
            thread = threading.Thread(target=one.serve_forever, args=(0.02,), daemon=True)
            thread.start()
            yield one
            one.shutdown()
            thread.join()


def say(server: StudyServer, text: bytes, *, end: bool = True) -> bytes:
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=20) as line:
        line.sendall(text)
        if end:
            line.shutdown(socket.SHUT_WR)
        parts: list[bytes] = []
        while part := line.recv(65536):
            parts.append(part)
    return b"".join(parts)


def status(answer: bytes) -> int:
    """The code of an answer; 0 for none, 400 for a page without a head (HTTP/0.9)."""
    if answer.startswith(b"<!DOCTYPE"):
        return 400 if b"Error code: 400" in answer else 0
    return int(answer.split()[1]) if answer else 0


def begin(server: StudyServer, *heads: str) -> int:
    lines = ["POST /begin HTTP/1.1", f"Host: {home(server)}", *heads, "Content-Length: 0", "", ""]
    return status(say(server, "\r\n".join(lines).encode()))


def home(server: StudyServer) -> str:
    return f"127.0.0.1:{server.server_address[1]}"


def test_two_hundred_voters_at_once(server: StudyServer) -> None:
    gate = threading.Barrier(200)

    def vote(_: int) -> int:
        gate.wait()
        return begin(server, "Sec-Fetch-Site: same-origin")

    with ThreadPoolExecutor(200) as pool:
        assert set(pool.map(vote, range(200))) == {200}


@pytest.mark.parametrize("request_line", [
    b"GET //[ HTTP/1.1", b"GET", b"\xff\xfe\x00", b"GET / HTTP/9.9", b"BREW / HTTP/1.1",
    b"GET " + b"a" * 70_000 + b" HTTP/1.1", b"", b"GET /ask/x HTTP/1.1",
])  # fmt: skip
def test_malformed_requests_get_an_answer_without_a_traceback(
    server: StudyServer, capfd: pytest.CaptureFixture[str], request_line: bytes
) -> None:
    code = status(say(server, request_line + b"\r\nHost: x\r\n\r\n"))
    assert code == 0 or 400 <= code < 600
    assert "Traceback" not in capfd.readouterr().err
    assert begin(server, "Content-Type: application/json") == 200


@pytest.mark.parametrize("length", ["\u00b2", "-1", "9" * 5000, "x", "4097", ""])
def test_bad_lengths(server: StudyServer, capfd: pytest.CaptureFixture[str], length: str) -> None:
    lines = ["POST /ask/some-rater-word HTTP/1.1", f"Host: {home(server)}"]
    lines += ["Content-Type: application/json", f"Content-Length: {length}", "", ""]
    assert status(say(server, "\r\n".join(lines).encode("latin-1"))) == 400
    assert "Traceback" not in capfd.readouterr().err


def test_a_fault_is_one_line_and_the_server_goes_on(
    server: StudyServer, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Votes) -> str:
        raise RuntimeError("secret")

    with monkeypatch.context() as patch:
        patch.setattr(Votes, "join", fails)
        assert begin(server, "Sec-Fetch-Site: same-origin") == 500
    assert capfd.readouterr().err == "a request failed: RuntimeError\n"
    assert begin(server, "Sec-Fetch-Site: same-origin") == 200


def test_host_has_to_be_the_address_served(server: StudyServer) -> None:
    port = server.server_address[1]
    for host, wanted in {
        f"127.0.0.1:{port}": 200, f"localhost:{port}": 200, f"LOCALHOST:{port}": 200,
        f"evil.example:{port}": 421, "127.0.0.1": 421, f"127.0.0.1:{port + 1}": 421, "": 421,
        "[": 421, "127.0.0.1:99999999": 421, f"192.168.1.5:{port}": 421,
    }.items():  # fmt: skip
        assert status(say(server, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())) == wanted
    assert status(say(server, b"GET / HTTP/1.1\r\n\r\n")) == 421
    server.host = "0.0.0.0"
    assert server.serves(f"192.168.1.5:{port}") and server.serves(f"localhost:{port}")
    assert not server.serves(f"evil.example:{port}")


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"),
        ("192.0.2.7", "192.0.2.7"),
    ],
)  # fmt: skip
def test_the_address_that_is_shown_is_served(host: str, shown: str) -> None:
    """Of all interfaces, too: browsers need not open 0.0.0.0."""
    assert opened(host, 8300) == f"http://{shown}:8300/"
    assert serves(urlsplit(opened(host, 8300)).netloc, host, 8300)


def test_posts_from_other_pages_are_refused(server: StudyServer) -> None:
    for heads, wanted in {
        (f"Origin: http://{home(server)}",): 200,
        ("Sec-Fetch-Site: same-origin",): 200,
        ("Content-Type: application/json",): 200,
        ("Origin: http://evil.example",): 403,
        ("Origin: null",): 403,
        ("Origin:",): 403,
        (f"Origin: https://{home(server)}",): 403,
        ("Sec-Fetch-Site: cross-site", "Content-Type: application/json"): 403,
        ("Sec-Fetch-Site: same-site",): 403,
        ("Content-Type: application/x-www-form-urlencoded",): 403,
        ("Content-Type: text/plain",): 403,
        (): 403,
    }.items():
        assert begin(server, *heads) == wanted, heads


def test_silent_connections_are_closed_and_do_not_block_voters(
    server: StudyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_by.Handler, "timeout", 0.3)
    address = ("127.0.0.1", server.server_address[1])
    silent = [socket.create_connection(address, timeout=10) for _ in range(80)]
    try:
        assert threading.active_count() < 80
        assert begin(server, "Sec-Fetch-Site: same-origin") == 200
        assert silent[0].recv(1) == b""
    finally:
        for one in silent:
            one.close()
