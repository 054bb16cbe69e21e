"""Every solution in the book runs after its chapter and passes the check that the exercise names."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from build_book import chapters  # noqa: E402


def solutions(notebook: nbformat.NotebookNode) -> list[str]:
    """The Python blocks of the solutions, in order."""
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown" and "{solution}" in cell.source]
    bodies = [body for text in prose for body in re.findall(r"`{4}\{solution\}(.*?)`{4}", text, re.DOTALL)]
    return [block for body in bodies for block in re.findall(r"```python\n(.*?)```", body, re.DOTALL)]


@pytest.mark.parametrize("path", chapters(), ids=lambda path: path.stem)
def test_every_solution_calls_its_check(path):
    notebook = nbformat.read(path, as_version=4)
    blocks = solutions(notebook)
    assert len(blocks) == sum(cell.source.count("````{solution}") for cell in notebook.cells)
    assert all(re.search(r"^check_\w+\(", block, re.MULTILINE) for block in blocks)


@pytest.mark.long
@pytest.mark.parametrize("path", chapters(), ids=lambda path: path.stem)
def test_solutions_pass_their_checks(path):
    notebook = nbformat.read(path, as_version=4)
    notebook.cells += [new_code_cell(block) for block in solutions(notebook)]
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
                   ).execute()
