"""The browser of these tests, where there is none they are skipped; and the built book, served."""

import os
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from browser import CHROMIUM, MISSING, open_chromium  # noqa: E402
from build_book import BUILD, chapters, run_sphinx  # noqa: E402
from serve import open_server  # noqa: E402
from vendor import fetch  # noqa: E402


@pytest.fixture(scope="module")
def browser():
    """One chromium for all tests of a module."""
    if not CHROMIUM:
        pytest.skip(MISSING)
    with open_chromium() as chromium:
        yield chromium


@pytest.fixture(scope="session")
def html(tmp_path_factory):
    """The book's pages, built from the outputs that are committed."""
    folder = tmp_path_factory.mktemp("book")
    if missing := fetch(BUILD / "vendor"):
        pytest.skip(f"the pages would load scripts from other hosts: {missing}")
    failure = run_sphinx({path: path for path in chapters()}, folder, BUILD / "vendor")
    assert failure is None, failure
    return folder / "_build" / "html"


@pytest.fixture(scope="session")
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
