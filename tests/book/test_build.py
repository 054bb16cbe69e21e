"""What decides whether a chapter runs again, and what an exception does to the build."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import build_book  # noqa: E402
import execute  # noqa: E402
import vendor  # noqa: E402
from serve import open_server  # noqa: E402


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small checkout with a package, data and one chapter, that the tools take for theirs."""
    for name, text in {"zsar/clip.py": "a", "data/drawn/x.json": "{}"}.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    return tmp_path


def notebook(*code: str) -> nbformat.NotebookNode:
    """A notebook of some prose and code cells."""
    return new_notebook(cells=[new_markdown_cell("# Title"), *map(new_code_cell, code)])


@pytest.mark.parametrize("name", ["zsar/clip.py", "zsar/new.py", "data/drawn/x.json"])
def test_a_change_in_package_or_data_runs_chapters_again(checkout, name):
    before = execute.inputs_digest()
    assert execute.inputs_digest() == before
    (checkout / name).write_text("changed")
    assert execute.inputs_digest() != before


def test_code_and_tags_count_but_prose_does_not():
    page = notebook("1 + 1")
    before = execute.source_digest(page)
    page.cells[0].source = "# Another title"
    assert execute.source_digest(page) == before
    page.cells[1].metadata["tags"] = ["raises-exception"]
    assert execute.source_digest(page) != before


def execute_file(tmp_path: Path, page: nbformat.NotebookNode) -> tuple[subprocess.CompletedProcess, Path]:
    """Runs the notebook as the build does."""
    source, result = tmp_path / "page.ipynb", tmp_path / "result.ipynb"
    nbformat.write(page, source)
    command = [sys.executable, ROOT / "tools/execute.py", source, result]
    return subprocess.run(command, env=execute.environment(), capture_output=True, text=True), result


def test_an_exception_in_a_cell_fails_and_keeps_nothing(tmp_path):
    done, result = execute_file(tmp_path, notebook("1 / 0"))
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert not result.exists()


def test_outputs_are_merged_into_the_page_as_it_stands(tmp_path):
    page = notebook("print('out')")
    done, result = execute_file(tmp_path, page)
    assert done.returncode == 0, done.stderr
    page.cells[0].source = "# New prose"
    nbformat.write(page, tmp_path / "page.ipynb")
    merged = build_book.with_outputs(tmp_path / "page.ipynb", result)
    assert merged.cells[0].source == "# New prose"
    assert merged.cells[1].outputs[0].text == "out\n"
    assert nbformat.read(result, as_version=4).metadata["zsar"]["peak_mb"] > 10


def test_of_an_interactive_figure_the_html_is_kept(tmp_path):
    view = "application/vnd.jupyter.widget-view+json"
    page = notebook("figure")
    nbformat.write(page, tmp_path / "page.ipynb")
    data = {"text/html": "<figure>", "text/plain": "a sentence", view: {"model_id": "1", "version_major": 2}}
    page.cells[1].outputs = [nbformat.v4.new_output("execute_result", data, execution_count=1)]
    page.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    nbformat.write(page, tmp_path / "result.ipynb")
    merged = build_book.with_outputs(tmp_path / "page.ipynb", tmp_path / "result.ipynb")
    assert dict(merged.cells[1].outputs[0].data) == {"text/html": "<figure>", "text/plain": "a sentence"}
    assert "widgets" not in merged.metadata


def test_a_wrong_checksum_is_refused(tmp_path, monkeypatch):
    def forged(name: str, version: str, folder: Path) -> Path:
        (folder / "package.tgz").write_bytes(b"something else")
        return folder / "package.tgz"

    monkeypatch.setattr(vendor, "tarball", forged)
    assert "checksum" in vendor.fetch(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_registry_is_said(tmp_path, monkeypatch):
    def unreachable(name: str, version: str, folder: Path) -> Path:
        raise OSError("no network")

    monkeypatch.setattr(vendor, "tarball", unreachable)
    assert "no network" in vendor.fetch(tmp_path)


def test_serve_takes_the_next_free_port():
    with open_server(18431) as first, open_server(first.server_port) as second:
        assert second.server_port > first.server_port
