"""A pytest plugin: what nbval found, notebook by notebook, in the file that the book's status page shows.

``make test`` writes ``_build/nbval.json``, ``make test GPU=1`` the file named in ``$ZSAR_NBVAL_RECORD``. Where tests
run in several processes, only the one that collects their reports writes.
"""

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import pytest
from book_facts import NBVAL, book_commit, cpu_name, stored, versions
from build_book import name_of

LIBRARIES = ("torch", "torchvision", "open_clip_torch", "numpy")


def device_name() -> str:
    """What ``$ZSAR_DEVICE`` names, an accelerator as its driver calls it if torch can ask; else the processor."""
    kind = os.environ.get("ZSAR_DEVICE", "cpu")
    if kind == "cpu":
        return cpu_name()
    import torch

    backend = getattr(torch, kind)
    return backend.get_device_name() if hasattr(backend, "get_device_name") else f"{kind} on {platform.machine()}"


def code_cells(path: Path) -> int:
    """How many cells nbval has to run there."""
    return sum(cell.cell_type == "code" for cell in nbformat.read(path, as_version=4).cells)


class NotebookRecord:
    """Collects the reports of nbval's cells and writes a row a notebook when the session ends."""

    def __init__(self, root: Path, path: Path) -> None:
        self.root, self.path = root, path
        self.cells: dict[str, dict[str, bool]] = {}
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Setup, call or teardown of a cell."""
        file, _, cell = report.nodeid.partition("::")
        if file.endswith(".ipynb"):
            cells = self.cells.setdefault(file, {})
            if report.skipped:  # a cell that was left out did not run, and the notebook is incomplete
                cells.pop(cell, None)
            elif report.when == "call" or report.failed or cell in cells:
                cells[cell] = cells.get(cell, False) or report.failed
            self.seconds[file] = self.seconds.get(file, 0.0) + report.duration

    def rows(self) -> dict[str, dict[str, object]]:
        """Notebook -> outcome; it passed if all of its cells ran and none failed."""
        run = {"date": datetime.now(UTC).date().isoformat(), "commit": book_commit(), "device": device_name()}
        rows = {}
        for file, cells in self.cells.items():
            path = self.root / file
            counts = {"of": code_cells(path), "cells": len(cells), "failed": sum(cells.values())}
            rows[name_of(path)] = {"passed": counts["cells"] == counts["of"] and not counts["failed"], **counts,
                                         "seconds": round(self.seconds[file], 1), **run}
        return rows

    def pytest_sessionfinish(self) -> None:
        """Renews the rows of the notebooks that ran; rows made with other libraries are dropped."""
        if not self.cells:
            return
        made_with = {"python": platform.python_version(), "versions": versions(LIBRARIES)}
        before = stored(self.path)
        kept = before.get("notebooks", {}) if before.items() >= made_with.items() else {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        record = made_with | {"notebooks": dict(sorted((kept | self.rows()).items()))}
        self.path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def pytest_configure(config: pytest.Config) -> None:
    """Watches a session with ``--nbval``; the workers of pytest-xdist report to it."""
    if getattr(config.option, "nbval", False) and not hasattr(config, "workerinput"):
        path = Path(os.environ.get("ZSAR_NBVAL_RECORD", NBVAL))
        config.pluginmanager.register(NotebookRecord(config.rootpath, path))
