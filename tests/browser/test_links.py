"""Links between the built pages, read from their HTML: each leads somewhere, and prev/next through the whole book."""

from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup
from looks import PAGES


@cache
def parse(path: Path) -> BeautifulSoup:
    """A page, read once."""
    return BeautifulSoup(path.read_bytes(), "html.parser")


@cache
def anchors(path: Path) -> set[str]:
    """What a #fragment may name on a page."""
    return {tag.get("id") or tag["name"] for tag in parse(path).select("[id], a[name]")}


def dead(path: Path) -> list[str]:
    """What a page links to or loads within the book and is not there."""
    found = []
    for tag in parse(path).select("[href], [src]"):
        link = tag.get("href") or tag.get("src") or ""
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.is_file() or (parts.fragment and target.suffix == ".html"
                                    and unquote(parts.fragment) not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("name", [*(f"book/{name}" for name in PAGES), "search", "genindex"])
def test_every_internal_link_leads_somewhere(html, name):
    path = html / f"{name}.html"
    assert len(parse(path).select("a[href]")) > len(PAGES)
    assert dead(path) == []


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<p id="x"><a href="#x">a</a><a href="a.html#y">b</a><img src="no.png">'
                                     '<a href="https://a.org/">c</a><a href="b.html">d</a>')
    assert dead(tmp_path / "a.html") == ["a.html#y", "no.png", "b.html"]


def test_prev_and_next_lead_through_the_book(html):
    start = html / "book" / f"{PAGES[0]}.html"
    there = [start]
    while link := parse(there[-1]).select_one("a.right-next"):
        there.append((there[-1].parent / link["href"]).resolve())
        assert len(there) <= len(PAGES)
    back = [there[-1]]
    while link := parse(back[-1]).select_one("a.left-prev"):
        back.append((back[-1].parent / link["href"]).resolve())
        assert len(back) <= len(PAGES)
    names = [path.relative_to((html / "book").resolve()).with_suffix("").as_posix() for path in there]
    assert names == PAGES
    assert back == there[::-1]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_it_is(html, name):
    soup = parse(html / "book" / f"{name}.html")
    heading, = soup.select("article h1")
    assert soup.html["lang"] == "en"
    title = soup.title.text.split(" — ")[0]
    assert title
    assert heading.get_text().startswith(title), title
    skip = soup.select_one("a[href='#main-content']")
    assert skip
    assert soup.find(id="main-content")
    assert [image["src"][:80] for image in soup.select("article img") if not image.get("alt")] == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_describes_itself(html, name):
    description, = parse(html / "book" / f"{name}.html").select("meta[name=description]")
    assert description["content"].strip()
