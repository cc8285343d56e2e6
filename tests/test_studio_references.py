"""The studio's Edit tab tells FLUX.2 what to do, with further pictures; a tiny random klein."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.studio_browser import DESKTOP, PHONE, WAIT, StudioProcess, Visit, chromium
from tiny_flow import tiny_flow_folder

pytest.importorskip("fastapi")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioProcess]:
    data = tmp_path_factory.mktemp("studio")
    shutil.copytree(tiny_flow_folder("klein"), data / "models" / "klein")
    server = StudioProcess(data)
    yield server
    server.stop()


def picture(folder: Path, name: str, seed: int) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / name)
    return str(folder / name)


def test_an_instruction_with_two_more_pictures(
    browser: Any, studio: StudioProcess, tmp_path: Path
) -> None:
    """Added, one taken away, sent in order, and the recipe fills the form again."""
    visit = Visit(browser.new_context(viewport=DESKTOP).new_page(), studio.address)
    visit.open("edit")
    page, tab = visit.page, visit.page.locator(".tab:visible")
    pictures = tab.get_by_role("group", name="Other pictures")
    assert pictures.count() == 0  # shown for instructions alone
    tab.get_by_label("Choose a file").first.set_input_files(picture(tmp_path, "photo.png", 0))
    page.wait_for_selector(".picked .name")
    tab.get_by_label("Model", exact=True).select_option("klein")
    tab.get_by_label("Method", exact=True).select_option("instruct")
    pictures.wait_for()
    files = [picture(tmp_path, f"toy{n}.png", n) for n in (1, 2, 3)]
    pictures.get_by_label("Add a picture").set_input_files(files)
    pictures.get_by_text("Picture 4: toy3.png").wait_for()
    pictures.get_by_role("button", name="Remove picture 3").click()
    assert pictures.locator(".name").all_inner_texts() == [
        "Picture 2: toy1.png", "Picture 3: toy3.png",
    ]  # fmt: skip
    assert not visit.axe()
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.set_viewport_size(DESKTOP)
    tab.get_by_label("The photo shows").fill("a cat")
    tab.get_by_label("It should show").fill("the cat as the toy of picture 2")
    tab.locator("summary", has_text="More settings").click()
    tab.get_by_label("Steps", exact=True).fill("2")
    tab.locator("button[data-run]").click()
    page.wait_for_selector(".compare .top img", timeout=WAIT)
    given = sorted(file.name for file in (studio.data / "jobs").rglob("toy*.png"))
    assert given == ["toy1.png", "toy3.png"]
    # The pictures survive a reload, and go away with another method.
    page.reload()
    pictures.get_by_text("Picture 3: toy3.png").wait_for()
    tab.get_by_label("Method", exact=True).select_option("p2p")
    pictures.wait_for(state="hidden")
    assert visit.faults == [] and visit.abroad() == []
