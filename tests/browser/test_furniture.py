"""The built pages' furniture: footer, minutes, definitions, cards, logo. All but the last test need no browser."""

import html as entities
import re
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from book_facts import book_commit  # noqa: E402
from build_book import chapters, pages  # noqa: E402

import zsar  # noqa: E402

CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


def texts(html: Path) -> dict[str, str]:
    """Page -> its file."""
    return {page: (html / f"{page}.html").read_text(encoding="utf-8") for page in pages()}


def test_every_page_names_its_version_and_has_a_form(html):
    for page, text in {**texts(html), "search": (html / "search.html").read_text(encoding="utf-8")}.items():
        address = entities.unescape(re.search(r'class="report-error" href="([^"]+)"', text)[1])
        assert address.startswith(f"{CONFIG['repository']['url']}/issues/new?template=error-in-the-book.yml&page="
                                  f"{page.removeprefix('book/')}&version={zsar.__version__}")
        assert f"Version {zsar.__version__}, commit" in text


def test_the_status_page_tells_the_truth(html):
    text = (html / "book/status.html").read_text(encoding="utf-8")
    commit = book_commit()
    assert ("outside a git checkout" if commit == "none" else commit.removesuffix("+")) in text
    for path in chapters():  # what the stored run of each took
        assert re.search(rf"{path.stem}</p></td>\s*<td><p>[\d.]+ s, \d+ MB", text), path.stem
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", text)
    assert "No record exists" in text or re.search(r"\d+ of \d+ cells", text)


def test_chapters_and_assignments_say_how_long_they_take(html):
    for page, text in texts(html).items():
        found = re.search(r'</h1>\s*<p class="minutes">Reading (\d+) min', text)
        assert (found is not None) == (ROOT / f"{page}.ipynb").exists()
        if found:
            works = "Difficulty" in text or "assignments" in page
            assert ("exercises" in text[found.start():found.start() + 300]) == works


def test_the_form_for_errors_gets_the_page_from_every_link(html):
    for page, text in texts(html).items():
        links = [entities.unescape(link) for link in re.findall(r'href="([^"]*error-in-the-book[^"]*)"', text)]
        assert links
        for link in links:
            assert parse_qs(urlsplit(link).query)["page"] == [page.removeprefix("book/")]


def test_links_to_terms_carry_the_glossarys_own_words(html):
    glossary = (html / "book/glossary.html").read_text(encoding="utf-8")
    anchors = set(re.findall(r'<dt id="(term-[^"]+)"', glossary))
    assert len(anchors) > 50
    linked = set()
    for text in texts(html).values():
        for tag in re.findall(r'<a [^>]*href="[^"]*#term-[^"]+"[^>]*>', text):
            anchor = re.search(r'#(term-[^"]+)"', tag)[1]
            definition = re.search(r'data-definition="([^"]+)"', tag)[1]
            assert f'aria-description="{definition}"' in tag
            assert anchor in anchors
            linked.add(anchor)
    assert len(linked) > 40
    pgd = re.search(r'data-definition="([^"]+)"[^>]*#term-PGD"', texts(html)["book/evaluate-it-right"])[1]
    assert pgd.startswith("Projected gradient descent: many short steps of FGSM")


def test_a_term_is_linked_once_a_page(html):
    for page, text in texts(html).items():
        found = re.findall(r'class="glossary-link[^>]*#(term-[^"]+)"', text)
        assert len(found) == len(set(found)), page


def test_every_page_has_a_card(html):
    for page, text in texts(html).items():
        card = dict(re.findall(r'<meta property="og:([\w:]+)" content="([^"]*)"', text))
        assert card["url"].endswith(f".github.io/zsar/{page}.html")
        assert entities.unescape(card["site_name"]) == CONFIG["title"]
        assert card["title"]
        image = html / card["image"].split("/zsar/")[1]
        assert 5e3 < image.stat().st_size < 2e5
        if page.endswith("/student"):
            assert not card["description"].startswith("Open this assignment")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_logo_is_there_in_both_themes(html, theme):
    text = (html / "book/welcome.html").read_text(encoding="utf-8")
    source = re.search(rf'<img src="([^"]+)" class="logo__image only-{theme}', text)[1]
    logo = (html / "book" / source).read_text(encoding="utf-8")
    assert logo == (ROOT / f"book/_static/logo-{theme}.svg").read_text(encoding="utf-8")
    assert "<text" not in logo  # outlines: no font is needed
    assert 'rel="icon" href="../_static/favicon.png"' in text


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_definition_shows_on_focus_within_a_phone(html, browser, theme):
    tab = browser.new_page(viewport={"width": 375, "height": 800})
    tab.add_init_script(f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}')")
    tab.goto((html / "book/evaluate-it-right.html").as_uri())
    links = tab.locator("article a[data-definition]")
    shown = """link => {
        const before = getComputedStyle(link, '::after').content;
        link.focus({focusVisible: true});
        const style = getComputedStyle(link, '::after');
        const number = value => parseFloat(value) || 0;
        const left = link.closest('p, dd, li, td').getBoundingClientRect().left + number(style.left);
        return [before, style.content, left, left + number(style.width), style.color, style.backgroundColor]}"""
    assert links.count() > 5
    for link in links.all():
        before, content, left, right, ink, ground = link.evaluate(shown)
        assert before == "none"
        assert len(content) > 40
        assert 0 <= left < right <= 375
        assert tab.evaluate("document.documentElement.scrollWidth") == 375
        light, dark = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ground, ink))
        assert abs(light - dark) > 300
    tab.close()


def test_escape_puts_a_definition_away(html, browser):
    tab = browser.new_page()
    tab.goto((html / "book/welcome.html").as_uri())
    first, second = tab.locator("article a[data-definition]").all()[:2]
    shown = "link => getComputedStyle(link, '::after').content"
    first.focus()
    assert first.evaluate(shown) != "none"
    tab.keyboard.press("Escape")
    assert first.evaluate(shown) == "none"
    second.focus()
    assert second.evaluate(shown) != "none"
    tab.close()
