"""How the browser tests look at a page: which pages there are, how one is opened, shown, and its colours compared."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from build_book import pages  # noqa: E402

STILL = "*, ::before, ::after { transition: none !important; }"  # measured is never the middle of a change of theme
PAGES = [name.removeprefix("book/") for name in pages()]  # every page of the table of contents, in its order


def open_tab(browser, *places: str):
    """A tab that collects errors in ``.errors`` and, blocked, requests outside ``places`` in ``.outside``."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.errors, tab.outside = [], []

    def local_only(route):
        if route.request.url.startswith((*places, "data:", "blob:")):
            return route.continue_()
        tab.outside.append(route.request.url)
        return route.abort()

    tab.route("**/*", local_only)
    tab.on("console", lambda message: message.type == "error" and tab.errors.append(message.text))
    tab.on("pageerror", lambda error: tab.errors.append(str(error)))
    tab.on("response", lambda answer: answer.status >= 400 and tab.errors.append(f"{answer.status} {answer.url}"))
    return tab


def show(tab, theme: str, width: int) -> None:
    """Changes theme and width of an open page, as the theme's own button and a turned phone do."""
    tab.set_viewport_size({"width": width, "height": 900})
    tab.evaluate("theme => Object.assign(document.documentElement.dataset, {theme, mode: theme})", theme)


def luminance(colour: str) -> float:
    """Relative luminance of a CSS colour, as WCAG 2.1 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= .03928 else ((part + .055) / 1.055)**2.4 for part in parts]
    return sum(weight * part for weight, part in zip((.2126, .7152, .0722), linear, strict=True))
