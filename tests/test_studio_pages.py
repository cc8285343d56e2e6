"""The studio's pages in a browser: every tab, accessible and offline; a drag, live and exact."""

from __future__ import annotations

import base64
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.studio_browser import (
    AXE,
    DESKTOP,
    TABS,
    WAIT,
    StudioProcess,
    Visit,
    frames_of,
)

pytest.importorskip("fastapi")

UNDONE = 20  # steps; test_studio_drag.py undoes fifty, without a browser


def visit(browser: Any, studio: StudioProcess, **how: Any) -> Visit:
    context = browser.new_context(**{"viewport": DESKTOP, **how})
    return Visit(context.new_page(), studio.address)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_tab_is_accessible_offline_and_without_errors(
    browser: Any, studio: StudioProcess, theme: str
) -> None:
    page = visit(browser, studio, color_scheme=theme, reduced_motion="reduce")
    findings: list[str] = []
    for tab in TABS:
        page.open(tab)
        page.settled()
        findings += [f"{tab}: {line}" for line in page.axe()] if AXE.is_file() else []
    assert not findings
    assert not page.faults
    assert not page.abroad()
    page.page.context.close()


def test_of_two_tabs_the_one_asked_for_last_is_shown(browser: Any, studio: StudioProcess) -> None:
    page = visit(browser, studio)
    held: list[Any] = []
    page.page.route("**/js/tabs/compare.js", lambda route: held.append(route))  # a slow connection
    page.page.goto(f"{studio.address}#compare")
    page.until(lambda: bool(held))
    page.open("models")
    held[0].continue_()
    page.until(lambda: page.page.locator("#title-compare").count() > 0)
    page.painted()
    assert page.page.locator("#title-models").is_visible()
    assert not page.page.locator("#title-compare").is_visible()
    page.page.context.close()


def test_forms_are_kept_over_a_reload(browser: Any, studio: StudioProcess) -> None:
    page = visit(browser, studio)
    page.open("generate")
    page.page.get_by_label("Description").fill("a photo of a duck on the beach")
    page.page.get_by_label("Steps", exact=True).fill("7")
    page.page.get_by_label("Guidance", exact=True).fill("3")
    page.page.reload()
    page.page.wait_for_selector("#title-generate:visible")
    assert page.page.get_by_label("Description").input_value() == "a photo of a duck on the beach"
    assert page.page.get_by_label("Steps", exact=True).input_value() == "7"
    assert page.page.get_by_label("Guidance", exact=True).input_value() == "3"
    page.page.get_by_role("button", name="Reset Steps").click()
    assert page.page.get_by_label("Steps", exact=True).input_value() == "50"
    page.page.context.close()


def test_what_is_missing_is_said_in_one_line(browser: Any, studio: StudioProcess) -> None:
    page = visit(browser, studio)
    for tab, run, wanted in (
        ("swap", "Swap", "Choose a photo first."),
        ("learn", "Learn", "Add photos of the subject first."),
        ("generate", "Generate", "Describe the picture in words."),
    ):
        page.open(tab)
        page.page.locator(f"section.tab:visible button[data-run]:has-text('{run}')").click()
        assert page.page.locator(".actions:visible .problem").inner_text() == wanted
    page.page.context.close()


def png(size: tuple[int, int] = (96, 64)) -> bytes:
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, : size[0] // 2] = (200, 60, 40)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def test_photos_are_dropped_pasted_masked_and_kept(browser: Any, studio: StudioProcess) -> None:
    page = visit(browser, studio)
    page.open("swap")
    data = base64.b64encode(png()).decode()
    give = """([kind, data]) => {
      const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
      const transfer = new DataTransfer();
      transfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
      const event = kind === "drop"
        ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true })
        : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true });
      document.querySelector("#main").dispatchEvent(event);
    }"""
    for kind in ("drop", "paste"):
        page.page.evaluate(give, [kind, data])
        page.page.wait_for_selector(".picked .name")
        assert page.page.locator(".picked").inner_text().count("96 x 64 pixels") == 1
        if kind == "drop":
            page.page.get_by_role("button", name="Change", exact=True).click()
    # The red half is selected by a click on it, without a brush.
    page.page.get_by_role("button", name="Mark the subject").click()
    assert not page.axe()
    page.page.get_by_role("button", name="Select area").click()
    x, y = page.place(20, 40, "dialog canvas")
    page.page.mouse.click(x, y)
    page.page.get_by_role("button", name="Use this mask").click()
    page.page.wait_for_selector("text=A mask is set")
    held = page.page.evaluate("JSON.parse(localStorage['understudy.swap'])")
    mask = page.page.request.get(f"{studio.address}api/files/{held['mask']['id']}?download=1")
    white = np.asarray(Image.open(io.BytesIO(mask.body())).convert("L")) > 127
    assert white.shape == (64, 96)
    assert white[:, :46].all() and not white[:, 52:].any()
    page.page.reload()
    page.page.wait_for_selector("text=A mask is set")
    # A mask and a selection exclude each other: the field comes back when the mask is removed.
    area = page.page.get_by_label("Area that may change", exact=True)
    assert area.count() == 0
    page.page.get_by_label("Grow the mask", exact=True).fill("8")
    assert page.page.evaluate("JSON.parse(localStorage['understudy.swap']).growMask") == 8
    assert not page.axe()
    page.page.get_by_role("button", name="Change the mask").click()
    page.page.get_by_role("button", name="Remove the mask").click()
    page.page.get_by_role("button", name="Pick in the photo").click()
    page.page.wait_for_selector("dialog canvas:focus")
    page.page.keyboard.press("Enter")  # a point in the middle, then a box from there
    page.page.get_by_role("button", name="Box", exact=True).click()
    page.page.locator("dialog canvas").focus()
    for key in ("Enter", "Shift+ArrowRight", "Shift+ArrowDown", "Enter"):
        page.page.keyboard.press(key)
    page.page.get_by_role("button", name="Use this area").click()
    assert area.input_value() == "48,32; 48,32,11,11"
    assert not page.faults
    page.page.context.close()


def test_a_newcomer_swaps_with_one_click(browser: Any, studio: StudioProcess) -> None:
    page = visit(browser, studio)
    asked: list[dict[str, Any]] = []

    def queued(route: Any) -> None:
        asked.append(route.request.post_data_json)
        route.fulfill(status=201, json={"id": "later"})

    page.page.route(
        "**/api/jobs", lambda r: queued(r) if r.request.method == "POST" else r.continue_()
    )
    page.open("learn")
    page.page.get_by_role("button", name="Try a ready subject in a swap").click()
    page.page.wait_for_selector("#title-swap:visible")
    page.until(lambda: bool(asked))
    (job,) = asked
    assert (job["verb"], job["inputs"]["swap"]) == ("swap", ["dog=toby"])
    assert page.page.request.get(f"{studio.address}api/files/{job['inputs']['photo']}").ok
    assert page.page.locator(".tab:visible .picked .name").inner_text() == "photo-5.png"
    assert page.page.locator(".tab:visible .strip.small img").count() == 4
    assert not page.faults
    page.page.context.close()


def test_scripts_are_short() -> None:
    static = Path(__file__).parent.parent / "src/understudy/studio/static"
    long = {p.name: n for p in static.rglob("*.js") if (n := len(p.read_text().splitlines())) > 300}
    assert not long, "make two files of it"


def test_a_drag_is_live_in_order_and_undone_exactly(browser: Any, studio: StudioProcess) -> None:
    page = visit(browser, studio)
    heads = frames_of(page.page)
    page.open("drag")
    # It goes on until it arrives, also where it makes little progress for a while.
    patience = page.page.locator(".tab:visible input[data-name='stall_steps']")
    patience.evaluate("one => { one.closest('details').open = true }")
    patience.fill("0")
    patience.press("Tab")
    page.page.get_by_role("button", name="Open this picture").click()
    page.page.wait_for_selector(".drag canvas[data-moment='0']", timeout=WAIT)
    page.click_pixel(60, 60)
    page.click_pixel(112, 60)  # too far to be reached: the drag still runs when it is changed
    page.page.wait_for_selector(".drag canvas[data-points='1']")
    page.page.get_by_role("button", name="Run", exact=True).click()
    moment = lambda: page.canvas()["moment"]  # noqa: E731
    page.until(lambda: int(moment()) > UNDONE, 60, moving=moment)
    # A target is moved while it runs: from releasing the pointer to the frame that knows it.
    page.page.mouse.move(*page.place(112, 60))
    page.page.mouse.down()
    page.page.mouse.move(*page.place(110, 66))
    before, sent = int(page.canvas()["re"]), len(heads)
    began = time.perf_counter()
    page.page.mouse.up()
    page.until(lambda: int(page.canvas()["re"]) > before, 30, 0.005, moving=moment)
    taken = time.perf_counter() - began
    older = [head for head in heads[sent:] if head["re"] <= before]
    print(f"pointer to frame: {1000 * taken:.0f} ms, {len(older)} frames on their way before it")
    assert len(older) <= 3, "the new target waits for at most what was on its way"
    pause = page.page.get_by_role("button", name="Pause")
    if not pause.count():  # a busy page sees frames late: the drag had ended when it was changed
        page.page.get_by_role("button", name="Run", exact=True).click()
    pause.click()
    page.page.wait_for_selector("button:has-text('Run')")
    page.until(lambda: not heads[-1]["running"])
    page.painted()

    def shown() -> tuple[str, str, str]:
        picture = "document.querySelector('.drag canvas').toDataURL()"
        told = page.canvas()
        return told["moment"], told["step"], page.page.evaluate(picture)

    page.page.mouse.move(5, 300)
    page.page.locator(".drag canvas").blur()
    page.painted()
    seen = {}
    for _ in range(UNDONE):
        place, step, picture = shown()
        seen[place] = (step, picture)
        page.page.keyboard.press("Control+z")
        page.until(lambda place=place: page.canvas()["moment"] != place, 60, 0.01)
        page.painted()
    assert len(seen) == UNDONE
    for _ in range(UNDONE):
        place = page.canvas()["moment"]
        page.page.keyboard.press("Control+Shift+Z")
        page.until(lambda place=place: page.canvas()["moment"] != place, 60, 0.01)
        page.painted()
        place, step, picture = shown()
        assert seen[place] == (step, picture)
    steps = [head["moment"] for head in heads if head["running"]]
    assert steps == sorted(steps), "frames arrive in order"
    assert not page.faults
    page.page.context.close()


def test_shortcuts_are_listed(browser: Any, studio: StudioProcess, tmp_path: Path) -> None:
    page = visit(browser, studio)
    page.open("gallery")
    page.page.keyboard.press("?")
    page.page.wait_for_selector("dialog:has-text('Keyboard shortcuts')")
    page.page.keyboard.press("Escape")
    page.page.wait_for_selector("dialog", state="detached")
    page.page.keyboard.press("2")
    page.page.wait_for_selector("#title-swap:visible")
    page.page.context.close()
