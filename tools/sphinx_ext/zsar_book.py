"""The book's own Sphinx extension: local scripts, one THEBE script a page, and the tables of the status page."""

import json
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.docutils import SphinxDirective

LIBRARIES = ("zsar", "torch", "torchvision", "open_clip_torch", "torchattacks", "numpy", "matplotlib", "ipywidgets",
             "jupyter-book", "sphinx")


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


def cpu_name() -> str:
    """The processor as the system names it."""
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


class StatusTable(SphinxDirective):
    """``{status-table} versions``, ``chapters`` or ``gpu``: what this build was made with, as a table."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The nodes of the table asked for."""
        rows, empty = getattr(self, self.arguments[0])()
        lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)] if rows else [empty]
        container = nodes.container()
        self.state.nested_parse(lines, self.content_offset, container)
        return container.children

    def versions(self) -> tuple[list[tuple[str, str]], str]:
        """Python, the libraries and the processor."""
        rows = [("Python", platform.python_version())] + [(name, version(name)) for name in LIBRARIES]
        return [*rows, ("processor", cpu_name())], ""

    def chapters(self) -> tuple[list[tuple[str, str]], str]:
        """Seconds and peak memory of each chapter, from the executed copies of this build."""
        folder = os.environ.get("ZSAR_EXECUTED")
        rows = []
        for path in sorted(Path(folder).glob("*.ipynb")) if folder else []:
            cost = json.loads(path.read_text(encoding="utf-8"))["metadata"]["zsar"]
            rows.append((path.stem.rsplit("-", 1)[0], f"{cost['seconds']} s, {cost['peak_mb']} MB"))
        return rows, "These pages were built from the stored outputs; no chapter was run."

    def gpu(self) -> tuple[list[tuple[str, str]], str]:
        """The record of the notebooks on an accelerator, if there is one."""
        from zsar.paths import data_path

        path = data_path("results", "gpu-notebooks.json")
        if not path.exists():
            return [], "None exists yet: nobody has run `make test GPU=1` on a machine with an accelerator."
        record = json.loads(path.read_text(encoding="utf-8"))
        rows = [(name, record[name]) for name in ("device", "date", "commit", "model", "python")]
        rows += list(record["versions"].items())
        rows += [(name, f"{'passed' if row['passed'] else 'FAILED'}, {row['cells']} cells, {row['seconds']} s")
                 for name, row in record["notebooks"].items()]
        return rows, ""


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the parts."""
    app.connect("config-inited", use_local_scripts, priority=100)  # before myst-nb reads its options
    app.connect("html-page-context", drop_second_thebe_script, priority=900)
    app.add_directive("status-table", StatusTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
