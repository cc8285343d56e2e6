"""The studio on a phone: nothing is wider than the screen, whatever a text says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.studio_browser import PHONE, TABS, StudioProcess, Visit

pytest.importorskip("fastapi")

LENGTHEN = """() => {
  document.querySelectorAll("details").forEach((one) => (one.open = true));
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const one = walk.currentNode;
    if (one.data.trim() && !one.parentElement.closest("nav, .topbar, svg, script, output, .skip"))
      one.data += "/a-long_path.of".repeat(12);
  }
}"""
TOO_WIDE = """() => {
  const body = [...document.querySelectorAll("body *")];
  const inside = (one) => one.closest(".nav, .table-scroll, .visually-hidden, pre") === null;
  const wide = (one) => one.getBoundingClientRect().right > innerWidth + 0.5;
  const found = body.filter((one) => inside(one) && one.getClientRects().length && wide(one));
  const told = found.map((one) => `${one.tagName} ${one.className} ${one.textContent.slice(0, 9)}`);
  const page = document.documentElement.scrollWidth;
  return page > innerWidth ? [`${page} pixels`, ...told] : told;
}"""

IN_A_WORD = """(one) => {
  const range = document.createRange();
  const walk = document.createTreeWalker(one, NodeFilter.SHOW_TEXT);
  while (walk.nextNode())
    for (const word of walk.currentNode.data.matchAll(/[\\w]+/g)) {
      range.setStart(walk.currentNode, word.index);
      range.setEnd(walk.currentNode, word.index + word[0].length);
      if (range.getClientRects().length > 1) return true;
    }
  return false;
}"""


@pytest.mark.parametrize("width", [390, 320])
def test_tabs_fit_a_phone_and_the_address_names_them(
    browser: Any, studio: StudioProcess, width: int
) -> None:
    """Also while jobs run, and with a long path in every text."""
    context = browser.new_context(viewport={**PHONE, "width": width})
    page = Visit(context.new_page(), studio.address)
    name, now = "a" * 80 + ".png", "2026-01-31T12:00:00+00:00"
    file = {"id": "1", "name": name, "verb": "drag", "created": now, "width": 64, "height": 64}
    job = {"id": "1", "verb": "drag", "created": now, "progress": {}, "error": "/b" * 99}
    wish = {"inputs": {"to": ["a red cat"]}}
    jobs = [{**job, "state": "failed"}, {**job, "state": "running"}]
    jobs += [{**job, "verb": "edit", "state": "done", "wish": wish}]
    pictures = {"items": [file, file], "next": None}
    counts = {"running": 1, "queued": 11}
    told = {"jobs": jobs, "counts": counts}
    page.page.route("**/api/jobs?*", lambda route: route.fulfill(json=told))
    page.page.route("**/api/gallery?*", lambda route: route.fulfill(json=pictures))
    for tab in TABS:
        page.open(tab)
        page.page.wait_for_selector("text=Jobs (12)")
        page.settled()
        assert not page.page.evaluate(TOO_WIDE), tab
        page.page.evaluate(LENGTHEN)
        assert not page.page.evaluate(TOO_WIDE), tab
    page.page.get_by_role("button", name="Jobs (12)").click()
    page.page.wait_for_selector(".job-row:has-text('a red cat')")
    assert not page.page.evaluate(TOO_WIDE)
    page.page.locator(".job-row").get_by_role("button", name="Gallery").click()
    page.page.wait_for_selector("#title-gallery:visible")
    assert page.page.locator(".job-row").first.is_hidden()
    context.close()


def test_first_steps_come_before_the_form_and_nothing_is_cut(
    browser: Any, studio: StudioProcess
) -> None:
    context = browser.new_context(viewport=PHONE)
    page = Visit(context.new_page(), studio.address)
    first = {
        "learn": "Try a ready subject in a swap",
        "swap": "Swap toby into this photo",
        "edit": "Start from an example photo",
        "generate": 'Draw "a photo of a duck on the beach"',
    }
    for tab, name in first.items():
        page.open(tab)
        button = page.page.get_by_role("button", name=name)
        button.wait_for()
        assert button.bounding_box()["y"] < PHONE["height"], tab
        words = [one for one in page.page.locator("button, th, output").all() if one.is_visible()]
        cut = [one.inner_text() for one in words if one.evaluate(IN_A_WORD)]
        assert not cut, "words of ours are not broken"
        table = page.page.locator(".tab:visible .table-scroll")
        for one in table.all():
            assert one.evaluate("one => one.scrollWidth <= one.clientWidth"), "nothing is cut off"
    context.close()
