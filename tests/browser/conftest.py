"""The built pages and the browser of these tests; where there is no browser they are skipped."""

import os
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from browser import CHROMIUM, MISSING, open_chromium  # noqa: E402
from build_book import BUILD, chapters, run_sphinx  # noqa: E402
from looks import PAGES, STILL, open_tab  # noqa: E402
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
    """The book's pages, built from the outputs that are committed: once, for all modules and all workers."""
    if missing := fetch(BUILD / "vendor"):
        pytest.skip(f"the pages would load scripts from other hosts: {missing}")
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # a worker's own folder lies in the folder of the run
    folder, printed = shared / "book", shared / "book.txt"
    with FileLock(shared / "book.lock"):
        if not printed.exists():
            printed.write_text(run_sphinx({path: path for path in chapters()}, folder, BUILD / "vendor") or "")
    failure = printed.read_text()
    assert not failure, failure
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
def page(browser, address, html):
    """A tab for pages that are served or read from files, with ``.errors`` and ``.outside``."""
    tab = open_tab(browser, address.removesuffix("/book"), html.as_uri())
    yield tab
    tab.close()


@pytest.fixture(scope="module", params=PAGES)
def opened(browser, address, request):
    """Every page in turn, loaded once for all tests of a module; its name is in ``.name``."""
    tab = open_tab(browser, address.removesuffix("/book"))
    tab.name = request.param
    tab.goto(f"{address}/{tab.name}.html", wait_until="load")
    tab.evaluate("window.MathJax?.startup?.promise")  # equations are drawn then
    tab.add_style_tag(content=STILL)
    yield tab
    tab.close()
