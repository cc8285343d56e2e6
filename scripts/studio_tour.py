"""Take the pictures of docs/how-to/studio-tour.md from a studio that is used by a script.

python scripts/studio_tour.py

It drags, edits, swaps the ready subject, opens the gallery and learns an example subject by a
short run of LoRA, with the built-in models in Debian's Chromium. It takes a few minutes on two
cores.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.studio_browser import DESKTOP, PHONE, StudioProcess, Visit, chromium  # noqa: E402

FOLDER = ROOT / "docs/how-to/studio"
QUALITY = 84  # of the pictures in the docs
LONG = 1_800_000  # milliseconds that learning may take
STEPS = "40"  # of learning


def shoot(visit: Visit, name: str) -> None:
    """Write what is seen as a small WebP."""
    visit.page.mouse.move(2, 500)
    visit.page.wait_for_timeout(600)
    picture = Image.open(io.BytesIO(visit.page.screenshot())).convert("RGB")
    FOLDER.mkdir(parents=True, exist_ok=True)
    picture.save(FOLDER / f"{name}.webp", quality=QUALITY, method=6)


def button(visit: Visit, name: str, place: str = ".tab:visible") -> Any:
    """A button of the open tab."""
    return visit.page.locator(place).get_by_role("button", name=name, exact=True).first


def learn(visit: Visit) -> None:
    """An example subject, by a run that is shorter than the built-in model's values."""
    visit.open("learn")
    button(visit, "Example subjects").click()
    button(visit, "Use these photos", "dialog").click()
    visit.page.wait_for_selector(".thumb:nth-child(4) .findings", timeout=LONG)
    visit.page.locator(".tab:visible").get_by_label("Method").select_option("lora")
    visit.page.wait_for_timeout(1500)
    shoot(visit, "learn")
    visit.page.locator(".tab:visible").get_by_label("Steps", exact=True).fill(STEPS)
    button(visit, "Learn").click()
    visit.page.wait_for_selector("h2:has-text('is learnt')", timeout=LONG)
    visit.page.locator("h2:has-text('is learnt')").scroll_into_view_if_needed()
    shoot(visit, "learnt")


def swap(visit: Visit) -> None:
    """The ready subject in the place of another one."""
    visit.open("swap")
    button(visit, "Swap toby into this photo").click()
    visit.page.wait_for_selector(".tab:visible .compare .top img", timeout=LONG)
    visit.page.wait_for_timeout(1500)
    shoot(visit, "swap")


def edit(visit: Visit) -> None:
    """Another word for a photo."""
    visit.open("edit")
    button(visit, "Examples").click()
    visit.page.locator("dialog button.tile").nth(2).click()
    visit.page.wait_for_selector(".tab:visible .picked .name")
    visit.page.get_by_label("It should show").fill("a photo of a blue rocket at sunset")
    visit.page.get_by_label("Method", exact=True).select_option("pnp")
    visit.page.wait_for_timeout(500)
    button(visit, "Edit").click()
    visit.page.wait_for_selector(".tab:visible .compare .top img", timeout=LONG)
    visit.page.wait_for_timeout(1500)
    shoot(visit, "edit")


def drag(visit: Visit) -> None:
    """A face that is turned."""
    visit.open("drag")
    button(visit, "Open this picture").click()
    visit.page.wait_for_selector(".drag canvas[data-moment='0']", timeout=LONG)
    visit.click_pixel(74, 80)
    visit.click_pixel(62, 80)
    visit.page.wait_for_selector(".drag canvas[data-points='1']")
    button(visit, "Run").click()
    visit.until(lambda: int(visit.canvas()["moment"]) >= 40, 600)
    button(visit, "Pause").click()
    visit.page.mouse.wheel(0, 150)
    shoot(visit, "drag")
    button(visit, "Save to the gallery").click()
    visit.page.wait_for_selector("h2:has-text('Saved to the gallery')", timeout=LONG)


def main() -> None:
    """Take all pictures."""
    with tempfile.TemporaryDirectory() as data, chromium() as browser:
        server = StudioProcess(Path(data))
        try:
            tour(browser, server.address)
        finally:
            server.stop()


def tour(browser: Any, address: str) -> None:
    """Use the studio and take the pictures on the way."""
    context = browser.new_context(viewport=DESKTOP, color_scheme="light")
    visit = Visit(context.new_page(), address)
    for part in (drag, edit, swap):
        part(visit)
    visit.open("gallery")
    visit.page.wait_for_selector(".tab:visible button.tile img")
    shoot(visit, "gallery")
    phone = browser.new_context(viewport=PHONE, color_scheme="dark")
    small = Visit(phone.new_page(), address)
    small.page.goto(address)
    held = visit.page.evaluate("localStorage['understudy.swap']")
    small.page.evaluate("held => { localStorage['understudy.swap'] = held }", held)
    small.page.reload()
    small.open("swap")
    small.page.wait_for_selector(".tab:visible .compare .top img")
    small.page.locator(".compare").scroll_into_view_if_needed()
    shoot(small, "phone")
    learn(visit)


if __name__ == "__main__":
    main()
