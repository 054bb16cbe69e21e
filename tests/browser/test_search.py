"""The book's own search, and the book read from the file system: no server, no network."""

import pytest
import yaml
from looks import ROOT

TERMS = {
    "zero-shot-clip": "logit scale",
    "breaking-clip": "FGSM",
    "loss-variants": "FARE",
    "finetuning-or-prompts": "prompt tuning",
    "price-of-robustness": "price",
    "evaluate-it-right": "gradient masking",
    "sixteen-datasets": "manifest",
    "full-reproduction": "protocol",
    "scaling-out": "sharing",
    "make-it-fast": "precision",
}
FINISHED = """() => /found|did not match/.test(document.querySelector("#search-results p.search-summary")?.innerText)"""


@pytest.fixture(params=["http", "file"])
def root(request, address, html):
    """Where the book begins: on a server, and in a folder."""
    return address.removesuffix("/book") if request.param == "http" else html.as_uri()


def test_every_chapter_has_a_term():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    numbered = [chapter["file"] for part in toc["parts"] if part.get("numbered") for chapter in part["chapters"]]
    assert [f"book/{name}" for name in TERMS] == numbered


def test_search_finds_the_chapter_of_a_term(page, root):
    """Each from a server; of the same index in a folder the first three."""
    missed = {}
    for name, term in list(TERMS.items())[:3 if root.startswith("file:") else None]:
        page.goto(f"{root}/search.html?q={term.replace(' ', '+')}", wait_until="load")
        page.wait_for_function(FINISHED)
        hits = page.eval_on_selector_all("#search-results ul.search > li > a", "links => links.map(link => link.href)")
        if not any(f"/{name}.html" in hit for hit in hits[:2]):
            missed[term] = hits[:4]
    assert missed == {}
    assert page.errors == []
    assert page.outside == []


@pytest.mark.parametrize("name", ["welcome", "breaking-clip"])
def test_pages_can_be_read_from_a_folder(page, html, name):
    page.goto(f"{(html / 'book').as_uri()}/{name}.html", wait_until="load")
    page.wait_for_load_state("networkidle")
    assert page.locator("article mjx-container").count() == page.locator("article .math").count() > 0
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.errors == []
    assert page.outside == []
