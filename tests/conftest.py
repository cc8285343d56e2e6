"""Shapes and types are checked at run time here, and only here; nothing touches the network."""

from __future__ import annotations

import gc
import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from jaxtyping import install_import_hook

import typechecks

if TYPE_CHECKING:
    from tests.studio_browser import StudioProcess

SOURCE = Path(__file__).parent.parent / "src"


def checkable() -> list[str]:
    """Our modules, without those that numba compiles or FastAPI calls (an upload is of another
    class than its hint says), and the packages above these."""
    found: list[str] = []
    for path in sorted(SOURCE.rglob("*.py")):
        inside = path.parent.rglob("*.py") if path.name == "__init__.py" else [path]
        if not any(word in p.read_text() for p in inside for word in ("numba", "APIRouter(")):
            name = path.relative_to(SOURCE).with_suffix("")
            found.append(".".join(name.parts).removesuffix(".__init__"))
    return found


gc.disable()  # until the tests are collected: what is imported stays

# Before anything of ours is imported: annotated shapes are checked in the first calls of a test.
typechecks.install()
install_import_hook(checkable(), "typechecks.checked")

import read_once  # noqa: E402


def pytest_collection_finish() -> None:
    gc.enable()


def pytest_runtest_logstart(nodeid: str) -> None:
    """Keep what each worker is at, for scripts/test to print if the tests do not end."""
    folder, worker = os.environ.get("TESTS_NOW"), os.environ.get("PYTEST_XDIST_WORKER")
    if folder and worker:
        Path(folder, worker).write_text(f"{nodeid}\n")


@pytest.fixture(scope="module", autouse=True)
def older_objects_stay() -> None:
    """What is there before a file's tests stays: imported modules, models that were read. Garbage
    collections need not look through it; that took a tenth of the suite's processor time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def offline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test talks to the network unless it is marked so."""
    if "network" in request.keywords:
        return

    def refuse(*_: object) -> None:
        raise AssertionError("a test tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def types_checked() -> None:
    """The first calls of every function are checked in every test."""
    typechecks.begin_test()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Torch's own stream begins at the same place for every test, whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Names of folders: pytest itself would read the names of all it made for every new one."""
    folder = tmp_path_factory.mktemp("caches")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, caches: Iterator[Path]) -> Path:
    """A cache folder of its own for every test."""
    folder = next(caches)
    folder.mkdir()
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session", autouse=True)
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A configuration folder for all tests: signing never touches the user's own key. And a cache
    for what is made once for several tests."""
    folder = tmp_path_factory.mktemp("config")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder))
        patch.setenv("UNDERSTUDY_CACHE", str(tmp_path_factory.mktemp("shared-cache")))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def models_read_once() -> Iterator[None]:
    """The folders of tiny models are read once a session."""
    with pytest.MonkeyPatch.context() as patch:
        read_once.install(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def power_stays_on() -> Iterator[None]:
    """No test cuts the power: none waits for the disk, which took a tenth of some files' time."""

    def flushed(_: object) -> None:
        pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", flushed)
        yield


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory is an empty folder, which is returned."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for the tests of a file."""
    from tests.studio_browser import chromium

    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def studio(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioProcess]:
    """A studio that runs for the tests of a file."""
    from tests.studio_browser import StudioProcess

    server = StudioProcess(tmp_path_factory.mktemp("studio"))
    yield server
    server.stop()
