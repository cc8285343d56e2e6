"""The four tasks of the studio from the first click to the result, by mouse and by keyboard."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.studio_browser import DESKTOP, PHONE, WAIT, StudioProcess, Visit

pytest.importorskip("fastapi")
pytestmark = pytest.mark.slow


class Mouse:
    """A person with a mouse."""

    def __init__(self, visit: Visit) -> None:
        self.visit, self.page = visit, visit.page

    def _shown(self, found: Any) -> Any:
        return found.locator("visible=true").first

    def button(self, name: str, exact: bool = True) -> Any:
        """A button by its name, in the dialog if one is open."""
        dialog = self.page.locator("dialog[open]")
        place = dialog if dialog.count() else self.page
        return self._shown(place.get_by_role("button", name=name, exact=exact))

    def reach(self, element: Any) -> None:
        """Bring it into use."""
        element.click()

    def press(self, name: str, exact: bool = True) -> None:
        """Use a button."""
        self.button(name, exact).click()

    def fill(self, label: str, text: str) -> None:
        """Write into a field."""
        field = self._shown(self.page.locator(".tab:visible").get_by_label(label, exact=True))
        self.reach(field)
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(text)

    def choose(self, label: str, value: str) -> None:
        """Choose an option by its value."""
        self._shown(
            self.page.locator(".tab:visible").get_by_label(label, exact=True)
        ).select_option(value)

    def unfold(self, title: str) -> None:
        """Open a part that is folded."""
        self.reach(self._shown(self.page.locator(".tab:visible summary", has_text=title)))


class Keys(Mouse):
    """A person without a mouse: Tab, letters, arrows, Enter."""

    def reach(self, element: Any) -> None:
        handle = element.element_handle()
        for _ in range(200):
            if self.page.evaluate("one => document.activeElement === one", handle):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach {element}")

    def press(self, name: str, exact: bool = True) -> None:
        self.reach(self.button(name, exact))
        self.page.keyboard.press("Enter")

    def choose(self, label: str, value: str) -> None:
        field = self._shown(self.page.locator(".tab:visible").get_by_label(label, exact=True))
        self.reach(field)
        self.page.keyboard.press("Home")
        for _ in range(12):
            if field.input_value() == value:
                return
            self.page.keyboard.press("ArrowDown")
        raise AssertionError(f"{label} has no {value}")

    def unfold(self, title: str) -> None:
        self.reach(self._shown(self.page.locator(".tab:visible summary", has_text=title)))
        self.page.keyboard.press("Enter")


HANDS = {"mouse": Mouse, "keys": Keys}


@pytest.fixture(params=HANDS)
def hand(request: Any, browser: Any, studio: StudioProcess) -> Iterator[Mouse]:
    context = browser.new_context(viewport=DESKTOP)
    visit = Visit(context.new_page(), studio.address)
    yield HANDS[request.param](visit)
    assert not visit.axe()
    assert not visit.faults
    assert not visit.abroad()
    context.close()


def name_of(hand: Mouse) -> str:
    return "pipmouse" if type(hand) is Mouse else "pipkeys"


def test_a_subject_is_learnt(hand: Mouse) -> None:
    hand.visit.open("learn")
    hand.press("Example subjects")
    hand.press("Use these photos")
    hand.page.wait_for_selector(".thumb:nth-child(4) .findings", timeout=WAIT)
    hand.fill("Name", name_of(hand))
    hand.choose("Method", "lora")
    hand.page.wait_for_timeout(500)
    hand.fill("Steps", "2")
    hand.unfold("More settings")
    hand.fill("Prior samples", "0")
    hand.choose("Sample previews", "0")
    hand.press("Learn")
    hand.page.wait_for_selector(f"h2:has-text('{name_of(hand)} is learnt')", timeout=WAIT)
    table = hand.page.get_by_label("Learnt subjects", exact=True)
    table.get_by_text(name_of(hand), exact=True).wait_for()  # without another visit of the tab


def test_it_is_swapped_into_a_photo(hand: Mouse) -> None:
    hand.visit.open("swap")
    hand.press("Examples")
    hand.press("a photo of a duck standing on a wooden floor")
    hand.page.wait_for_selector(".picked .name")
    words = hand.page.locator(".chips button").all_inner_texts()
    assert words == ["photo", "duck", "standing", "wooden", "floor"]
    assert hand.page.locator(".chips [aria-pressed=true]").inner_text() == "duck"
    hand.choose("Replace it with", name_of(hand))
    hand.unfold("More settings")
    hand.fill("Steps", "3")
    hand.fill("Budget", "0")
    hand.press("Swap")
    hand.page.wait_for_selector(".compare .top img", timeout=WAIT)
    slider = hand.page.locator(".compare input")
    slider.focus()
    hand.page.keyboard.press("ArrowRight")
    assert slider.input_value() == "51"
    assert hand.page.locator("text=Changed area").count() == 1
    hand.page.reload()  # nothing is lost
    hand.page.wait_for_selector(".compare .top img", timeout=30_000)


def test_a_photo_is_edited(hand: Mouse) -> None:
    hand.visit.open("edit")
    hand.press("Examples")
    hand.press("a photo of a rocket at sunset")
    hand.page.wait_for_selector(".picked .name")
    hand.fill("It should show", "a photo of a red rocket at sunset")
    assert hand.page.locator(".diff ins").inner_text() == "red"
    hand.choose("Method", "pnp")
    hand.page.wait_for_timeout(500)
    hand.unfold("More settings")
    hand.fill("Steps", "3")
    hand.fill("Inversion steps", "3")
    hand.press("Edit")
    hand.page.wait_for_selector(".compare .top img", timeout=WAIT)


def test_a_picture_is_dragged_and_saved(hand: Mouse) -> None:
    hand.visit.open("drag")
    hand.press("Open this picture")
    hand.page.wait_for_selector(".drag canvas[data-moment='0']", timeout=WAIT)
    canvas = hand.page.locator(".drag canvas")
    if type(hand) is Mouse:
        hand.visit.click_pixel(60, 60)
        hand.visit.click_pixel(60, 72)
        hand.page.wait_for_selector(".drag canvas[data-points='1']")
        for _ in range(3):
            hand.press("One step")
    else:
        hand.reach(canvas)
        keys = (
            ["ArrowLeft"] * 4 + ["ArrowUp"] * 4 + ["Enter", "Shift+ArrowDown", "ArrowDown", "Enter"]
        )
        for key in keys:
            hand.page.keyboard.press(key)
        hand.page.wait_for_selector(".drag canvas[data-points='1']")
        for _ in range(3):
            hand.page.keyboard.press(".")
    hand.visit.until(lambda: int(hand.visit.canvas()["step"]) == 3, 60)
    hand.press("Save to the gallery")
    hand.page.wait_for_selector("h2:has-text('Saved to the gallery')", timeout=WAIT)
    hand.visit.open("gallery")
    hand.page.wait_for_selector("button.tile:has-text('Drag')")
    hand.page.set_viewport_size(PHONE)
    assert hand.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    hand.page.set_viewport_size(DESKTOP)
    hand.press("dragged.png", exact=False)
    hand.page.wait_for_selector("dialog h3:has-text('Recipe')")
    hand.press("Fill the form")  # the drag goes on from where it was saved
    hand.page.wait_for_selector(".drag canvas[data-moment][data-points='1']", timeout=WAIT)


def test_a_closed_tab_finds_its_job_again(browser: Any, studio: StudioProcess) -> None:
    context = browser.new_context(viewport=DESKTOP)
    visit = Visit(context.new_page(), studio.address)
    visit.open("generate")
    visit.page.get_by_label("Description").fill("a photo of a duck on the beach")
    visit.page.get_by_label("Steps", exact=True).fill("200")
    visit.page.locator(".tab:visible button[data-run]").click()
    visit.page.wait_for_selector(".job .times:has-text('of 200')", timeout=WAIT)
    visit.page.close()
    time.sleep(3)
    again = Visit(context.new_page(), studio.address)
    began = time.perf_counter()
    again.page.goto(f"{studio.address}#generate")
    again.page.wait_for_selector(".job .times:has-text('of 200')")
    taken = time.perf_counter() - began
    print(f"progress is back after {1000 * taken:.0f} ms")
    # A server that is killed goes on with the job when it is started again.
    studio.kill()
    studio.start()
    again.page.wait_for_selector(".job .times:has-text('of 200')", timeout=WAIT)
    again.page.get_by_role("button", name="Cancel").locator("visible=true").first.click()
    again.page.wait_for_selector(".job strong:has-text('Cancelled')", timeout=WAIT)
    context.close()
