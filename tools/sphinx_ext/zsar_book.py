"""The book's own Sphinx extension: local scripts, one THEBE script a page, and the modules beside this one."""

import os

from book_furniture import add_furniture, set_site
from book_glossary import add_definitions, link_first_mentions
from book_status import StatusTable
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config


def use_local_scripts(app: Sphinx, config: Config) -> None:
    """Points MathJax at the copy that the build brought in; without it its CDN stays."""
    folder = os.environ.get("ZSAR_VENDOR")
    if not folder:
        return
    config.html_static_path.append(folder)
    config.mathjax_path = "mathjax/es5/tex-mml-chtml.js"


def drop_second_thebe_script(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document) -> None:
    """sphinx-thebe and the theme both declare the same constants; every page would log an error."""
    seen = set()
    scripts = context.get("script_files", [])
    for script in list(scripts):
        body = getattr(script, "attributes", {}).get("body") or ""
        if "THEBE_JS_URL" in body:
            if "thebe" in seen:
                scripts.remove(script)
            seen.add("thebe")


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the parts."""
    app.connect("config-inited", use_local_scripts, priority=100)  # before myst-nb reads its options
    app.connect("html-page-context", drop_second_thebe_script, priority=900)
    app.connect("config-inited", set_site)
    app.connect("doctree-resolved", link_first_mentions)
    app.connect("html-page-context", add_furniture, priority=400)  # before the cards describe the page
    app.connect("html-page-context", add_definitions)
    app.add_directive("status-table", StatusTable)
    app.setup_extension("book_access")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
