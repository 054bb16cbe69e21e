"""What nbval does not see: that every chapter was run, in order, as it stands, and reads as a chapter should."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from build_book import chapters, name_of  # noqa: E402
from execute import code_cells, source_digest  # noqa: E402

PATHS = sorted(path for path in (ROOT / "book").rglob("*.ipynb")
               if ".ipynb_checkpoints" not in path.parts and path.name != "student.ipynb")
CHAPTERS = {path: nbformat.read(path, as_version=4) for path in PATHS}
IMAGES = {"image/png", "image/jpeg"}
each_chapter = pytest.mark.parametrize("path", PATHS, ids=name_of)


def prose(path: Path) -> str:
    """All markdown of a chapter."""
    return "\n".join(cell.source for cell in CHAPTERS[path].cells if cell.cell_type == "markdown")


def all_prose() -> str:
    """All markdown of the book."""
    return "\n".join([*map(prose, PATHS), *(page.read_text(encoding="utf-8") for page in ROOT.glob("book/*.md"))])


def test_every_page_is_in_the_toc():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    listed = {toc["root"], *(entry["file"] for part in toc["parts"] for entry in part["chapters"])}
    patterns = ("book/*.ipynb", "book/*.md", "book/assignments/*/student.ipynb")
    pages = {path.relative_to(ROOT).with_suffix("").as_posix() for pattern in patterns for path in ROOT.glob(pattern)}
    assert pages == listed
    assert chapters()[0].stem == "welcome"


def test_no_page_exists_twice():
    assert not [path for path in PATHS if path.with_suffix(".md").exists()]  # myst fails on such a pair


@each_chapter
def test_every_cell_ran_in_order_without_error(path):
    cells = code_cells(CHAPTERS[path])
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "make refresh"
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]


@each_chapter
def test_outputs_are_of_the_code_as_it_stands(path):
    stored = CHAPTERS[path].metadata.get("zsar", {}).get("source")
    assert stored == source_digest(CHAPTERS[path]), "a code cell changed since the outputs were made: make refresh"


@each_chapter
def test_cells_are_short_and_end_plainly(path):
    for cell in code_cells(CHAPTERS[path]):
        assert cell.source.strip(), "an empty code cell"
        assert len(cell.source.splitlines()) <= 30, cell.source.splitlines()[0]
        assert not cell.source.rstrip().endswith(";"), "nbval does not honour a trailing ';': end with plt.show()"
        assert "# NBVAL" not in cell.source, "tags, not comments, tell nbval what to do"


@each_chapter
def test_setup_cell_is_the_same_everywhere(path):
    setup = code_cells(CHAPTERS[path])[0].source
    assert setup == code_cells(CHAPTERS[PATHS[0]])[0].source
    assert len(setup.splitlines()) <= 8
    url = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    assert re.findall(r"git\+(\S+?)[\"']", setup) == [url]


@each_chapter
def test_pictures_have_alt_text(path):
    for cell in code_cells(CHAPTERS[path]):
        pictures = [output for output in cell.outputs if IMAGES & set(output.get("data", {}))]
        assert not any("image/svg+xml" in output.get("data", {}) for output in cell.outputs), "nbval compares SVG"
        if pictures:
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt) >= 10, f"no alt text (cell metadata mystnb.image.alt): {cell.source.splitlines()[0]}"
    assert not re.findall(r"!\[\]\(", prose(path)), "an image without alt text"


@each_chapter
def test_a_page_is_light(path):
    assert path.stat().st_size < 1.5e6


@each_chapter
def test_equation_references_resolve(path):
    labels = re.findall(r"\$\$\s*\(([\w:-]+)\)", all_prose()) + re.findall(r":label:\s*([\w:-]+)", all_prose())
    assert len(re.findall(r"\$\$\s*\(([\w:-]+)\)", all_prose())) == len(set(re.findall(r"\$\$\s*\(([\w:-]+)\)",
                                                                                        all_prose())))
    for name in re.findall(r"\{eq\}`(?:[^`<]*<)?([\w:-]+)>?`", prose(path)):
        assert name in labels, f"no equation is labelled {name}"


@each_chapter
def test_exercises_have_solutions(path):
    exercises = re.findall(r"\{exercise\}[^\n]*\n:label:\s*([\w-]+)", prose(path))
    solutions = re.findall(r"\{solution\}\s+([\w-]+)", prose(path))
    assert sorted(exercises) == sorted(solutions)


@each_chapter
def test_colab_kernel_is_found(path):
    assert CHAPTERS[path].metadata["kernelspec"]["name"] == "python3"


def test_citations_are_in_the_bibliography():
    known = set(re.findall(r"@\w+\{([\w:-]+),", (ROOT / "book/references.bib").read_text(encoding="utf-8")))
    cited = {key.strip() for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", all_prose()) for key in keys.split(",")}
    assert cited <= known
