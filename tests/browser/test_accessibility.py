"""axe-core on every page: nothing that it calls moderate, serious or critical, in either theme, wide or narrow.

Its minor findings are left: the empty corner of a table that pandas or Markdown wrote.
"""

import pytest
from axe_playwright_python.sync_playwright import Axe
from looks import show

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


def findings(tab, context: dict | None = None, **options) -> list[str]:
    """What axe-core finds: rule, weight, and the first elements with what is wrong with them."""
    response = Axe().run(tab, context, {"resultTypes": ["violations"], "preload": False, **options}).response
    return [f"{found['id']} ({found['impact']}, {len(found['nodes'])}): {node['html'][:150]} {node['failureSummary']}"
            for found in response["violations"] if found["impact"] != MINOR for node in found["nodes"][:3]]


def test_structure(opened):
    show(opened, "light", 1280)
    assert opened.evaluate(MARK_TEXTS) > 10
    assert findings(opened, rules={"color-contrast": {"enabled": False}}) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(opened, theme):
    show(opened, theme, 1280)
    assert opened.evaluate(MARK_TEXTS) > 10
    assert findings(opened, {"include": ["[data-text]"]}, runOnly=["color-contrast"]) == []


def test_what_scrolls_on_a_phone_can_be_reached_by_keyboard(opened):
    show(opened, "light", 375)
    opened.wait_for_timeout(500)  # the theme looks for what scrolls a little after the window has changed
    assert findings(opened, runOnly=["scrollable-region-focusable", "nested-interactive", "target-size"]) == []


def test_what_is_wrong_is_found(browser):
    tab = browser.new_page()
    tab.set_content('<html lang="en"><title>x</title><main><h1>x</h1><img src="x.png">'
                    '<p style="color: #999">pale<p style="color: #999">as pale<p>black</main>')
    assert [text.split()[0] for text in findings(tab)] == ["color-contrast", "color-contrast", "image-alt"]
    assert tab.evaluate(MARK_TEXTS) == 3
    assert len(findings(tab, {"include": ["[data-text]"]}, runOnly=["color-contrast"])) == 1
    tab.close()
