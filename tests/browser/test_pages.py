"""Every page in a real browser, both themes, wide and narrow: whole, light enough, without an error."""


import pytest
from looks import ROOT, show

SCREENSHOTS = ROOT / "_build" / "screenshots"
MAX_HEIGHT = 16_000  # pixels; a taller picture is more than Chromium draws
HEAVY = {"full-reproduction": 3e6}  # the report; any other page weighs 1.5 MB at most, scripts and fonts included
WEIGHT = """[...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .map(entry => [entry.name.split("/").slice(3).join("/"), entry.transferSize])"""


def test_page_is_whole(opened):
    assert opened.locator("article h1").count() == 1
    assert opened.locator("article mjx-container").count() == opened.locator("article .math").count()
    assert opened.locator("article mjx-merror").count() == 0
    images = opened.evaluate("[...document.images].map(i => [i.src.slice(0, 80), i.complete && i.naturalWidth > 0])")
    assert [source for source, loaded in images if not loaded] == []
    assert opened.errors == []
    assert opened.outside == []


def test_page_weighs_little(opened):
    parts = opened.evaluate(WEIGHT)
    assert len(parts) > 10
    weight = sum(size for _, size in parts)
    assert weight <= HEAVY.get(opened.name, 1.5e6), sorted(parts, key=lambda part: -part[1])[:8]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 375])
def test_page_fits_the_window(opened, theme, width):
    show(opened, theme, width)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    height = min(opened.evaluate("document.documentElement.scrollHeight"), MAX_HEIGHT)
    opened.screenshot(path=SCREENSHOTS / f"{opened.name.replace('/', '-')}-{theme}-{width}.jpg", type="jpeg",
                      quality=60, full_page=True, clip={"x": 0, "y": 0, "width": width, "height": height})
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.errors == []
    assert opened.outside == []


def test_the_button_changes_the_theme_and_is_remembered(page, address):
    page.goto(f"{address}/welcome.html", wait_until="load")
    button = page.locator("button.theme-switch-button:visible").first
    button.focus()
    for _ in range(3):  # light, dark and as the system has it
        if page.evaluate("document.documentElement.dataset.mode") == "dark":
            break
        page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.goto(f"{address}/glossary.html", wait_until="load")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.errors == []
