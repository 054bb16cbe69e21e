"""The pages, built from the committed outputs and opened in a real browser: both themes, no errors."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path.relative_to(ROOT / "book").with_suffix("").as_posix()
               for pattern in ("*.ipynb", "*.md", "*/*/student.ipynb") for path in (ROOT / "book").glob(pattern))


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
    assert not page.evaluate("[...document.querySelectorAll('article img')]"
                             ".filter(i => !i.alt).map(i => i.src)")
    broken = "[...document.querySelectorAll('article img')].filter(i => i.complete && !i.naturalWidth).length"
    assert page.evaluate(broken) == 0
    assert page.errors == []
    assert page.outside == []
