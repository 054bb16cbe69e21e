"""What the build says of itself: the tables of the status page, from the file that the build wrote."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

Rows = list[tuple[str, str]]


def facts() -> dict:
    """What `make book` knows of its build; a build by hand, with jupyter-book alone, knows next to nothing."""
    path = os.environ.get("ZSAR_FACTS")
    if path:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    return {"version": "unknown", "commit": "none", "python": "unknown", "processor": "unknown",
            "versions": {}, "costs": {}, "words": {}, "nbval": {}, "gpu": {}}


def describe(commit: str) -> str:
    """A commit in words."""
    if commit == "none":
        return "unknown: built outside a git checkout"
    return commit.removesuffix("+") + (" and uncommitted changes" if commit.endswith("+") else "")


def age(record: str, build: str) -> str:
    """Whether a record made at one commit speaks for a build of another."""
    if "none" in (record, build):
        return "whether that is this build's code is not known"
    if record != build:
        return "**not this build's commit**"
    return "this build's, but for uncommitted changes" if build.endswith("+") else "this build's commit"


def outcome(row: dict, build: str) -> str:
    """One notebook of a record, in a line."""
    result = "passed" if row["passed"] else f"**failed** ({row['failed']} cells)" if row["failed"] else "**incomplete**"
    return (f"{result}, {row['cells']} of {row['of']} cells, {row['seconds']} s, on {row['date']} at commit "
            f"{row['commit']} ({age(row['commit'], build)})")


def record_rows(record: dict, build: str) -> Rows:
    """A record of nbval as rows: what it was made with, then its notebooks."""
    if not record:
        return []
    # The first records named date, commit and device once for all notebooks, and not how many cells there were to run.
    notebooks = {name: record | {"of": row["cells"]} | row for name, row in record["notebooks"].items()}
    rows = [(name, record[name][:16]) for name in ("kind", "model", "python") if name in record]  # a digest is long
    rows += list(record["versions"].items())
    rows += [("device", device) for device in sorted({row["device"] for row in notebooks.values()})]
    return rows + [(name, outcome(row, build)) for name, row in notebooks.items()]


class StatusTable(SphinxDirective):
    """``{status-table} build``, ``versions``, ``chapters``, ``nbval`` or ``gpu``: a table of this build."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The nodes of the table asked for."""
        rows, empty = getattr(self, self.arguments[0])(facts())
        head = ["| what | in this build |", "|---|---|"]
        lines = [*head, *(f"| {name} | {value} |" for name, value in rows)] if rows else [empty]
        container = nodes.container()
        self.state.nested_parse(lines, self.content_offset, container)
        return container.children

    def build(self, known: dict) -> tuple[Rows, str]:
        """When and of what."""
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        return [("built", now), ("version", known["version"]), ("commit", describe(known["commit"]))], ""

    def versions(self, known: dict) -> tuple[Rows, str]:
        """Python, the libraries and the processor."""
        return [("Python", known["python"]), *known["versions"].items(), ("processor", known["processor"])], ""

    def chapters(self, known: dict) -> tuple[Rows, str]:
        """Seconds and peak memory of each chapter when it last ran."""
        rows = [(name, f"{cost['seconds']} s, {cost['peak_mb']} MB") for name, cost in known["costs"].items()]
        return rows, "These pages were built from the stored outputs; no chapter was run."

    def nbval(self, known: dict) -> tuple[Rows, str]:
        """The last comparison of the stored outputs with what the code gives."""
        return (record_rows(known["nbval"], known["commit"]),
                "No record exists where these pages were built: `make test` was not run there.")

    def gpu(self, known: dict) -> tuple[Rows, str]:
        """The record of the notebooks on an accelerator, if there is one."""
        return (record_rows(known["gpu"], known["commit"]),
                "None exists yet: nobody has run `make test GPU=1` on a machine with an accelerator.")
