"""What stands around a page: the line of minutes under its title, its footer, and the address that cards name."""

import html
import re
from urllib.parse import urlencode

from book_status import describe, facts
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

WORDS_A_MINUTE = 200  # as tools/prose.py, which counts them, has it
LICENCES = "Text CC BY 4.0, code MIT."


def site_address(repository: str) -> str:
    """Where GitHub publishes the pages of a repository."""
    owner, name = repository.rstrip("/").split("/")[-2:]
    return f"https://{owner}.github.io/{name}/"


def report_address(repository: str, page: str, **fields: str) -> str:
    """The form for an error in the book, with the page filled in."""
    query = {"template": "error-in-the-book.yml", "page": page, **fields}
    return f"{repository}/issues/new?{urlencode(query, safe='/')}"


def set_site(app: Sphinx, config: Config) -> None:
    """Cards need the book's name and whole addresses; `ogp_site_url` in _config.yml has the last word."""
    config.ogp_site_name = config.html_title
    if not config.ogp_site_url:
        config.ogp_site_url = site_address(config.html_theme_options["repository_url"])


def footer(repository: str, page: str, known: dict) -> str:
    """Version and commit, and the form for an error with both filled in."""
    commit = known["commit"]
    label = html.escape(describe(commit))
    if commit != "none":
        label = f'<a href="{repository}/tree/{commit.removesuffix("+")}">{label}</a>'
    report = report_address(repository, page, version=f"{known['version']}, {commit}")
    return (f'<p>Version {known["version"]}, commit {label}. '
            f'<a class="report-error" href="{html.escape(report)}">Report an error on this page</a>. {LICENCES}</p>')


def exercise_minutes(text: str) -> int:
    """The sum of what the exercises state, "Difficulty 2, 10 minutes"; of an assignment, of what its parts state."""
    stated = re.findall(r"Difficulty \d, (\d+) minutes", text)
    if own := re.search(r"Your time(.*?)Run time", text, re.DOTALL):
        stated += re.findall(r"\b\d\d+\b", own[1])  # parts take ten minutes and more; smaller numbers name a part
    return sum(map(int, stated))


def minutes(words: int, exercises: int, seconds: float | None) -> str:
    """The line under a title."""
    parts = [f"Reading {max(1, round(words / WORDS_A_MINUTE))} min ({words:,} words at {WORDS_A_MINUTE} a minute)"]
    if exercises:
        parts.append(f"exercises {exercises} min")
    if seconds is not None:
        parts.append(f"ran in {seconds / 60:.1f} min for this page")
    return " · ".join(parts)


def add_furniture(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Footer of every page; the line of minutes where the page is a notebook."""
    known, name = facts(), page.removeprefix("book/")
    context["theme_extra_footer"] = footer(app.config.html_theme_options["repository_url"], name, known)
    if doctree is None or not app.env.doc2path(page).endswith(".ipynb"):
        return
    cost = known["costs"].get(name, {})
    line = minutes(known["words"].get(name, 0), exercise_minutes(doctree.astext()), cost.get("seconds"))
    context["body"] = context["body"].replace("</h1>", f'</h1>\n<p class="minutes">{line}</p>', 1)
    begin_with_the_claim(doctree)


def begin_with_the_claim(doctree: nodes.document) -> None:
    """Drops what stands between title and claim from the tree, which after this only the page's card describes."""
    for paragraph in list(doctree.findall(nodes.paragraph)):
        if paragraph.children and isinstance(paragraph[0], nodes.emphasis):
            return
        paragraph.parent.remove(paragraph)
