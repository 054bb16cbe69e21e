"""What the theme leaves out for readers by screen reader, and the order of the search's hits."""

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

HERE = Path(__file__).resolve().parent
#: What Sphinx and MyST write -> what is right: a list holds list items, and an address in Markdown is escaped once.
CORRECT = {'role="doc-biblioentry"': 'role="listitem"', "&amp;amp;page=": "&amp;page="}


def use_own_parts(app: Sphinx, config: Config) -> None:
    """The home link within a landmark, and our order of search results."""
    config.templates_path.append(str(HERE / "templates"))
    config.html_search_scorer = str(HERE / "search_scorer.js")


def correct(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Replaces what is wrong in the text of a page."""
    for wrong, right in CORRECT.items():
        if wrong in context.get("body", ""):
            context["body"] = context["body"].replace(wrong, right)


def put_home_in_landmark(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Replaces the theme's link home by ours, which holds it."""
    context["sidebars"] = [name.replace("navbar-logo", "home-link") for name in context.get("sidebars") or []]


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the parts."""
    app.connect("config-inited", use_own_parts, priority=100)
    app.connect("html-page-context", correct)
    app.connect("html-page-context", put_home_in_landmark, priority=100)  # before the theme renders them
    return {"parallel_read_safe": True, "parallel_write_safe": True}
