"""What pages say of the code is there: modules, functions and tests that they name, and files that they show."""

import ast
import importlib
import re
import shlex
import sys
from pathlib import Path

import nbformat
import pytest

from zsar.__main__ import _parser

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from build_book import chapters, name_of, readme_picture  # noqa: E402

PAGES = sorted(path for pattern in ("*.ipynb", "*.md", "*/*/*.ipynb") for path in (ROOT / "book").glob(pattern))
TESTS = {node.name for path in (ROOT / "tests").rglob("*.py") for node in ast.parse(path.read_text("utf-8")).body
         if isinstance(node, ast.FunctionDef)}


def prose(path: Path) -> str:
    """The markdown of a page."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")


def find(name: str) -> object:
    """What a dotted name stands for. Raises ImportError and AttributeError."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:n]))
            break
        except ModuleNotFoundError:
            continue
    for part in parts[n:]:
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_names_on_pages_exist(path):
    for name in re.findall(r"`(zsar(?:\.\w+)+)`", prose(path)):
        find(name)
    assert set(re.findall(r"`(test_\w+)`", prose(path))) <= TESTS


@pytest.mark.parametrize("name", ["README.md", "book/command-line.md"])
def test_command_lines_are_understood(name):
    lines = re.findall(r"^.*-m zsar (?!reproduce \.\.\.)(.+)$", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    lines = [line for line in lines if "`" not in line]
    assert len(lines) >= 5
    for line in lines:
        argv = shlex.split(line, comments=True)
        _parser(argv[:1]).parse_args(argv)  # raises ZsarError for an option that is none


def test_the_readme_shows_the_first_page_and_links_every_chapter():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"\]\((?!http)([^)]+)\)", readme):
        assert (ROOT / path).exists(), path
    assert [path.stem for path in chapters() if f"(book/{path.name})" not in readme] == []
    assert readme_picture(ROOT / "book" / "welcome.ipynb") == (ROOT / "book/_static/attack.jpg").read_bytes()


def test_the_slurm_script_is_shown_as_it_is():
    shown = re.findall(r"```bash\n(.*?)```", prose(ROOT / "book" / "scaling-out.ipynb"), re.DOTALL)
    assert shown == [(ROOT / "tools" / "reproduce.slurm").read_text(encoding="utf-8")]


def test_all_twelve_traps_name_a_test():
    section = prose(ROOT / "book" / "full-reproduction.ipynb").split("## Twelve traps")[1].split("\n## ")[0]
    items = re.split(r"^(\d+)\. ", section, flags=re.MULTILINE)
    assert list(map(int, items[1::2])) == list(range(1, 13))
    assert all("`test_" in item for item in items[2::2])
