"""The report in a real browser, from a file: both themes, wide and narrow, by keyboard, without a network."""


import pytest
from looks import luminance
from stored import ATTACK, first, put, task

from zsar.report import write_report
from zsar.report.scores import DRAWN
from zsar.results import Store

LABELS = [0, 1, 2] * 20


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    """A report on sixteen tasks with gains and losses of every strength."""
    store = Store(tmp_path_factory.mktemp("report"))
    for i, name in enumerate(DRAWN):
        of = task(name, LABELS)
        change = (-1)**i * (0, 2, 4, 8, 15, 27)[i % 11 // 2 + i % 2]  # images of 60
        for method, clean, robust in (("clip", 30, 5), ("tecoa:finetune", 30 + change, 12),
                                      ("tecoa:finetune@0.5", 30 - change, 20)):
            put(store, of, method, "none", first(clean, 60))
            put(store, of, method, ATTACK, first(robust, 60))
    return write_report(store, {}, store.folder / "report.html").as_uri()


@pytest.fixture(params=["light", "dark"])
def page(browser, address, request):
    """The report in one theme, with errors and requests other than for itself in ``.wrong``."""
    tab = browser.new_page(color_scheme=request.param)
    tab.wrong = []
    tab.on("console", lambda message: tab.wrong.append(message.text))
    tab.on("pageerror", lambda error: tab.wrong.append(str(error)))
    tab.on("request", lambda request: request.url.startswith(("file:", "data:")) or tab.wrong.append(request.url))
    tab.goto(address)
    yield tab
    tab.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_sticks_out_and_nothing_is_fetched(page, width):
    page.set_viewport_size({"width": width, "height": 844})
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 300)")
    assert page.wrong == []


def test_every_number_can_be_read_on_its_colour(page):
    pairs = page.evaluate("""[...document.querySelectorAll('td, td *, th, li, figcaption, summary')].map(e => {
        let back = e;
        while (back && getComputedStyle(back).backgroundColor === 'rgba(0, 0, 0, 0)') back = back.parentElement;
        return [getComputedStyle(e).color, getComputedStyle(back || document.body).backgroundColor, e.className];
    })""")
    assert {f"{kind}-{i}" for kind in ("gain", "loss") for i in range(1, 6)} <= {name for *_, name in pairs}
    for ink, paper, name in {tuple(pair) for pair in pairs}:
        low, high = sorted((luminance(ink), luminance(paper)))
        assert (high + .05) / (low + .05) >= 4.5, (ink, paper, name)


def test_a_number_opens_its_line_by_keyboard(page):
    link = page.locator("#clean td a").first
    link.focus()
    link.press("Enter")
    assert page.evaluate("document.querySelector(':target').closest('details').open")
    page.goto(page.url.split("#")[0])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the tables"
