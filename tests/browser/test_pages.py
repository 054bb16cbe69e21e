"""The pages, built from the committed outputs and opened in a real browser: both themes, a living slider, no errors."""

import os
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from build_book import BUILD, chapters, run_sphinx  # noqa: E402
from serve import open_server  # noqa: E402
from vendor import fetch  # noqa: E402

PAGES = sorted(path.relative_to(ROOT / "book").with_suffix("").as_posix()
               for pattern in ("*.ipynb", "*.md", "*/*/student.ipynb") for path in (ROOT / "book").glob(pattern))


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The book's pages, built from the outputs that are committed."""
    folder = tmp_path_factory.mktemp("book")
    if missing := fetch(BUILD / "vendor"):
        pytest.skip(f"the pages would load scripts from other hosts: {missing}")
    failure = run_sphinx({path: path for path in chapters()}, folder, BUILD / "vendor")
    assert failure is None, failure
    return folder / "_build" / "html"


@pytest.fixture(scope="module")
def address(html):
    """The built book, served."""
    server = open_server(18700 + os.getpid() % 1000, html)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/book"
    server.shutdown()
    server.server_close()


@pytest.fixture
def page(browser, address):
    """A page that collects console errors in ``.errors`` and, blocked, outside requests in ``.outside``."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.errors, tab.outside = [], []
    origin = address.removesuffix("/book")

    def local_only(route):
        if route.request.url.startswith((origin, "data:", "blob:")):
            return route.continue_()
        tab.outside.append(route.request.url)
        return route.abort()

    tab.route("**/*", local_only)
    tab.on("console", lambda message: message.type == "error" and tab.errors.append(message.text))
    tab.on("pageerror", lambda error: tab.errors.append(str(error)))
    yield tab
    tab.close()


def test_pages_build_without_a_warning(html):
    assert (html / "index.html").exists()
    for name in PAGES:
        assert (html / "book" / f"{name}.html").stat().st_size < 1.5e6


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole(page, address, name, theme):
    page.add_init_script(f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}')")
    page.goto(f"{address}/{name}.html", wait_until="load")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    assert page.locator("article h1").count() == 1
    assert page.locator("article mjx-container").count() == page.locator("article .math").count()
    assert not page.evaluate("[...document.querySelectorAll('article img:not(.widget-image)')]"
                             ".filter(i => !i.alt).map(i => i.src)")
    broken = "[...document.querySelectorAll('article img')].filter(i => i.complete && !i.naturalWidth).length"
    assert page.evaluate(broken) == 0
    assert page.errors == []
    assert page.outside == []


def test_a_slider_changes_the_picture(page, address, html):
    names = [path.stem for path in chapters()
             if "widget-state+json" in (html / "book" / f"{path.stem}.html").read_text("utf-8")]
    assert names, "no chapter has a living figure"
    for name in names:
        page.goto(f"{address}/{name}.html", wait_until="load")
        handle = page.locator(".widget-slider .noUi-handle, .jupyter-widgets input[type=range]").first
        handle.wait_for(timeout=20_000)
        picture = page.locator("img.widget-image:visible, .widget-image img:visible").first
        before = picture.get_attribute("src")
        handle.focus()
        handle.press("ArrowRight")
        page.wait_for_timeout(500)
        assert page.locator("img.widget-image:visible, .widget-image img:visible").first.get_attribute("src") != before
        assert page.errors == []
        assert page.outside == []
