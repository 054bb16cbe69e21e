"""The record that nbval leaves, the commit of a build, and what the status page makes of both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tools/sphinx_ext")]

import book_facts  # noqa: E402
import book_status  # noqa: E402
import build_book  # noqa: E402
from notebook_record import NotebookRecord, pytest_configure  # noqa: E402


def write(path: Path, *cells: tuple[str, str]) -> None:
    """A notebook of cells and what they printed."""
    made = [new_code_cell(code, execution_count=n + 1, outputs=[new_output("stream", text=out)])
            for n, (code, out) in enumerate(cells)]
    nbformat.write(new_notebook(cells=made), path)


def nbval(folder: Path, record: Path, *more: str) -> dict:
    """Runs nbval on a folder, with the plugin, and reads the record."""
    settings = {"PYTHONPATH": os.pathsep.join([str(ROOT / "tools"), str(ROOT)]), "ZSAR_NBVAL_RECORD": str(record)}
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "notebook_record",
                    "--nbval", "--nbval-current-env", *more], cwd=folder, env=os.environ | settings,
                   capture_output=True)
    return json.loads(record.read_text())


def test_nbval_leaves_a_row_a_notebook(tmp_path):
    (tmp_path / "pages").mkdir()
    write(tmp_path / "pages/good.ipynb", ("print(1)", "1\n"), ("print(2)", "2\n"))
    write(tmp_path / "pages/bad.ipynb", ("print(1)", "1\n"), ("print(2)", "3\n"))
    record = nbval(tmp_path / "pages", tmp_path / "record.json", "-n", "1", "--dist", "loadscope")
    good, bad = record["notebooks"]["good"], record["notebooks"]["bad"]
    assert good["passed"]
    assert (good["cells"], good["of"], good["failed"]) == (2, 2, 0)
    assert not bad["passed"]
    assert bad["failed"] == 1
    assert {"date", "commit", "device", "seconds"} <= set(good)
    write(tmp_path / "pages/bad.ipynb", ("print(1)", "1\n"))
    again = nbval(tmp_path / "pages", tmp_path / "record.json", "bad.ipynb")
    assert again["notebooks"]["bad"]["passed"]
    assert again["notebooks"]["good"] == good  # a run of some keeps the rows of the others


class Report:
    """A report of one cell, as pytest passes it on."""

    def __init__(self, nodeid: str, failed: bool = False, skipped: bool = False) -> None:
        self.nodeid, self.failed, self.skipped, self.when, self.duration = nodeid, failed, skipped, "call", 0.5


def test_half_a_notebook_has_not_passed(tmp_path):
    write(tmp_path / "page.ipynb", ("1", ""), ("2", ""))
    record = NotebookRecord(tmp_path, tmp_path / "record.json")
    record.pytest_runtest_logreport(Report("page.ipynb::Cell 0"))
    record.pytest_runtest_logreport(Report("tests/test_x.py::test_y", failed=True))
    row = record.rows()["page"]
    assert (row["passed"], row["cells"], row["of"], row["failed"]) == (False, 1, 2, 0)
    assert "incomplete" in book_status.outcome(row, "none")


def test_a_cell_that_was_skipped_did_not_run(tmp_path):
    write(tmp_path / "page.ipynb", ("1", ""), ("2", ""))
    record = NotebookRecord(tmp_path, tmp_path / "record.json")
    record.pytest_runtest_logreport(Report("page.ipynb::Cell 0"))
    record.pytest_runtest_logreport(Report("page.ipynb::Cell 1", skipped=True))
    assert (record.rows()["page"]["passed"], record.rows()["page"]["cells"]) == (False, 1)


def test_rows_of_other_libraries_are_dropped(tmp_path):
    write(tmp_path / "page.ipynb", ("1", ""))
    path = tmp_path / "record.json"
    path.write_text(json.dumps({"python": "2.7", "versions": {}, "notebooks": {"old": {}}}))
    record = NotebookRecord(tmp_path, path)
    record.pytest_sessionfinish()
    assert "old" in path.read_text()  # nothing ran, nothing is written
    record.pytest_runtest_logreport(Report("page.ipynb::Cell 0"))
    record.pytest_sessionfinish()
    assert set(json.loads(path.read_text())["notebooks"]) == {"page"}


def test_workers_leave_the_record_to_the_controller():
    class Config:
        class option:
            nbval = True

        class pluginmanager:
            registered = []
            register = registered.append

        rootpath = ROOT

    worker = Config()
    worker.workerinput = {}
    pytest_configure(worker)
    assert Config.pluginmanager.registered == []
    pytest_configure(Config())
    assert len(Config.pluginmanager.registered) == 1


def git(folder: Path, *arguments: str) -> None:
    """Runs git there as nobody in particular."""
    subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments], cwd=folder, check=True,
                   capture_output=True)


def test_commit_of_a_checkout_and_of_a_copy_without_git(tmp_path):
    assert book_facts.book_commit(tmp_path) == "none"
    (tmp_path / "page.md").write_text("a")
    git(tmp_path, "init")
    git(tmp_path, "add", "page.md")
    git(tmp_path, "commit", "-m", "first")
    commit = book_facts.book_commit(tmp_path)
    assert len(commit) >= 7
    (tmp_path / "page.md").write_text("b")
    assert book_facts.book_commit(tmp_path) == commit + "+"
    (tmp_path / "unpacked").mkdir()
    assert book_facts.book_commit(tmp_path / "unpacked") == "none"


@pytest.mark.parametrize(("record", "build", "said"), [
    ("abc1234", "abc1234", "this build's commit"), ("abc1234", "def5678", "not this build's commit"),
    ("abc1234+", "abc1234+", "but for uncommitted changes"), ("abc1234", "abc1234+", "not this build's commit"),
    ("none", "abc1234", "not known"), ("abc1234", "none", "not known")])
def test_an_old_record_says_so(record, build, said):
    assert said in book_status.age(record, build)


def test_the_first_records_are_read_too():
    rows = dict(book_status.record_rows(
        {"device": "GPU", "date": "2026-01-01", "commit": "abc1234", "python": "3.12", "versions": {"torch": "2.11"},
         "notebooks": {"welcome": {"passed": True, "cells": 14, "failed": 0, "seconds": 12.4}}}, "def5678"))
    assert rows["welcome"].startswith("passed, 14 of 14 cells, 12.4 s, on 2026-01-01 at commit abc1234")
    assert book_status.record_rows({}, "abc1234") == []


def test_pages_are_renewed_when_what_they_say_of_the_build_changes(monkeypatch):
    keys = {build_book.build_key({}, None)}
    for name, value in {"commit": "abc1234", "nbval": {"notebooks": {}}}.items():
        monkeypatch.setattr(build_book, "facts", lambda copies, name=name, value=value: {name: value})
        keys.add(build_book.build_key({}, None))
        keys.add(build_book.build_key({}, None))
    assert len(keys) == 3
