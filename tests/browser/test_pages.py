"""Every page in a real browser, both themes, wide and narrow: whole, light enough, accessible, without an error.

A page is loaded once for all of its tests. axe-core finds nothing that it calls moderate, serious or critical; its
minor findings are left: the empty corner of a table that pandas or Markdown wrote.
"""

import os

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from looks import ROOT, STILL, show

SCREENSHOTS = ROOT / "_build" / "screenshots"
PICTURED = (("light", 1280), ("dark", 375))  # all four with LONG=1
#: Pixels of a page that are drawn; 16,000 are as many as Chromium draws, and twice the work.
MAX_HEIGHT = 16_000 if os.environ.get("ZSAR_LONG") else 8_000
HEAVY = {"full-reproduction": 3e6}  # the report; any other page weighs 1.5 MB at most, scripts and fonts included,
# as a web host sends them: compressed
WEIGHT = """[...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .map(entry => [entry.name.split("/").slice(3).join("/"), entry.transferSize])"""
MINOR = "minor"
# Text by text the contrast of a page takes axe a minute. Of all text that looks alike one is marked and measured:
# same ink, papers, size and weight. Solutions are opened first, so that they are seen.
MARK_TEXTS = """() => {
  document.querySelectorAll("details").forEach(details => details.open = true);
  document.querySelectorAll("[data-text]").forEach(text => text.removeAttribute("data-text"));
  const seen = new Set();
  for (const element of document.body.querySelectorAll("*")) {
    if (![...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim())) continue;
    if (!element.checkVisibility({visibilityProperty: true})) continue;
    const looks = (({color, fontSize, fontWeight}) => [color, fontSize, fontWeight])(getComputedStyle(element));
    for (let paper = element; paper; paper = paper.parentElement) {
      const {backgroundColor, backgroundImage, opacity} = getComputedStyle(paper);
      looks.push(backgroundColor, backgroundImage, opacity);
      if (backgroundColor.startsWith("rgb(")) break;
    }
    if (!seen.has(looks.join()) && seen.add(looks.join())) element.setAttribute("data-text", "");
  }
  return seen.size;
}"""


def keep_picture(tab, file: str, width: int) -> None:
    """The page, or as much as ``MAX_HEIGHT`` of it, as a picture, for those who look at what the tests saw."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    height = min(tab.evaluate("document.documentElement.scrollHeight"), MAX_HEIGHT)
    tab.screenshot(path=SCREENSHOTS / file, type="jpeg", quality=60, full_page=True,
                   clip={"x": 0, "y": 0, "width": width, "height": height})


def test_page_is_whole(opened):
    assert opened.locator("article h1").count() == 1
    assert opened.locator("article mjx-container").count() == opened.locator("article .math").count()
    assert opened.locator("article mjx-merror").count() == 0
    images = opened.evaluate("[...document.images].map(i => [i.src.slice(0, 80), i.complete && i.naturalWidth > 0])")
    assert [source for source, loaded in images if not loaded] == []
    assert opened.errors == []
    assert opened.outside == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 375])
def test_page_fits_the_window(opened, theme, width):
    show(opened, theme, width)
    if (theme, width) in PICTURED or os.environ.get("ZSAR_LONG"):
        keep_picture(opened, f"{opened.name.replace('/', '-')}-{theme}-{width}.jpg", width)
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.errors == []
    assert opened.outside == []


def findings(tab, **options) -> list[str]:
    """What axe-core finds: rule, weight, and the first elements with what is wrong with them.

    Contrast is measured on what ``MARK_TEXTS`` has marked.
    """
    if not tab.evaluate("'axe' in window"):
        tab.evaluate(AXE_SCRIPT)
        tab.evaluate("axe.configure({rules: [{id: 'color-contrast', selector: '[data-text]'}]})")
    response = tab.evaluate("options => axe.run(options)", {"resultTypes": ["violations"], "preload": False, **options})
    return [f"{found['id']} ({found['impact']}, {len(found['nodes'])}): {node['html'][:150]} {node['failureSummary']}"
            for found in response["violations"] if found["impact"] != MINOR for node in found["nodes"][:3]]


def test_all_rules_are_kept(opened):
    """All but the size of what a finger must hit, which is measured on a phone."""
    show(opened, "light", 1280)
    assert opened.evaluate(MARK_TEXTS) > 10
    assert findings(opened, rules={"target-size": {"enabled": False}}) == []


def check_in_the_dark(tab, width: int):
    """Contrast in the dark, and what depends on the width: what scrolls, and what a finger must hit."""
    show(tab, "dark", width)
    tab.wait_for_timeout(500)  # the theme looks for what scrolls a little after the window has changed
    assert tab.evaluate(MARK_TEXTS) > 5
    rules = ["color-contrast", "scrollable-region-focusable", "nested-interactive", "target-size"]
    assert findings(tab, runOnly=rules) == []


def test_in_the_dark_on_a_phone(opened):
    check_in_the_dark(opened, 375)


def test_page_weighs_little_and_nothing_was_wrong_on_the_way(opened):
    """After all that the tests above have done to it, when everything is there."""
    opened.wait_for_load_state("networkidle")
    parts = opened.evaluate(WEIGHT)
    assert len(parts) > 10
    weight = sum(size for _, size in parts)
    assert weight <= HEAVY.get(opened.name, 1.5e6), sorted(parts, key=lambda part: -part[1])[:8]
    assert opened.errors == []
    assert opened.outside == []


def test_in_the_dark_with_all_that_surrounds_a_page(page, address):
    """The side bars, which a phone puts away, are alike on all pages."""
    page.goto(f"{address}/zero-shot-clip.html", wait_until="networkidle")
    page.add_style_tag(content=STILL)
    check_in_the_dark(page, 1280)


def test_the_button_changes_the_theme_and_is_remembered(page, address):
    page.goto(f"{address}/welcome.html", wait_until="load")
    button = page.locator("button.theme-switch-button:visible").first
    button.focus()
    for _ in range(3):  # light, dark and as the system has it
        if page.evaluate("document.documentElement.dataset.mode") == "dark":
            break
        page.keyboard.press("Enter")
        page.wait_for_timeout(100)  # the button gets the focus back
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.goto(f"{address}/glossary.html", wait_until="load")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.errors == []


def test_what_is_wrong_is_found(browser):
    tab = browser.new_page()
    tab.set_content('<html lang="en"><title>x</title><main><h1>x</h1><img src="x.png">'
                    '<p style="color: #999">pale<p style="color: #999">as pale<p>black</main>')
    assert [text.split()[0] for text in findings(tab)] == ["image-alt"]
    assert tab.evaluate(MARK_TEXTS) == 3
    assert [text.split()[0] for text in findings(tab)] == ["color-contrast", "image-alt"]
    tab.close()
