"""An instructor notebook, read: what is given, what is to be written, what tests it, what a human reads.

The format is nbgrader's, so that a course that runs nbgrader can use the same file: metadata ``nbgrader`` on a cell
say whether it holds a solution (``solution``), tests (``grade``, with ``points``) or a written answer (both, on
markdown); ``### BEGIN SOLUTION`` to ``### END SOLUTION`` is taken out of the student's notebook, and so is
``### BEGIN HIDDEN TESTS`` to ``### END HIDDEN TESTS``. Two tags of ours: ``demo`` on cells that only the student runs
(pictures, trainings), ``instructor`` on commentary that is not released.
"""

import ast
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from zsar.errors import CourseError, first_line, unknown_name

try:
    import nbformat
except ImportError as error:
    raise CourseError('grading needs psutil and nbformat: pip install "zsar[course]"') from error

SOLUTION, HIDDEN = "SOLUTION", "HIDDEN TESTS"
#: How the book names a measured number, 72<!--measured fare clean-->; outside it only the number is read.
MEASURED = re.compile("<!--measured .+?-->")


@dataclass(frozen=True)
class Test:
    """A test cell: worth ``points``, all or none."""

    id: str
    title: str
    points: float
    source: str


@dataclass(frozen=True)
class Question:
    """A written question: its text is the prose before the answer; ``answer`` holds the model answer and the rubric."""

    id: str
    points: float
    text: str
    answer: str


def kind_of(cell: nbformat.NotebookNode) -> str:
    """What a cell is for: prose, commentary, given, demo, solution, test or written."""
    marks, tags = cell.metadata.get("nbgrader", {}), cell.metadata.get("tags", [])
    grade, solution = marks.get("grade", False), marks.get("solution", False)
    if cell.cell_type == "code":
        return "solution" if solution else "test" if grade else "demo" if "demo" in tags else "given"
    return "written" if grade and solution else "commentary" if "instructor" in tags else "prose"


def regions(source: str, name: str, where: str) -> Iterator[tuple[bool, list[str]]]:
    """The lines of a cell in runs: whether inside a region between ``BEGIN name`` and ``END name``, and the lines.

    Raises CourseError where the marks do not pair.
    """
    inside, lines = False, []
    for line in source.split("\n"):
        begins, ends = f"BEGIN {name}" in line, f"END {name}" in line
        if begins or ends:
            if begins == inside:
                raise CourseError(f"{where}: found {line.strip()!r} {'inside' if inside else 'outside'} a region; "
                                  f"expected ### BEGIN {name} and ### END {name} in turn")
            yield inside, lines
            inside, lines = begins, []
        else:
            lines.append(line)
    if inside:
        raise CourseError(f"{where}: ### BEGIN {name} has no ### END {name}")
    yield inside, lines


class Assignment:
    """An assignment by its instructor notebook: ``name`` is the folder's. Raises CourseError for one that is wrong."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self.notebook = nbformat.read(self.path, as_version=4)
        except FileNotFoundError as error:
            raise CourseError(f"no assignment at {self.path}: expected a folder with an instructor.ipynb") from error
        except Exception as error:  # nbformat raises whatever its parser meets
            raise CourseError(f"{self.path} is not a notebook: {first_line(error)}") from error
        self.name = self.path.parent.name
        for cell in self.notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = MEASURED.sub("", cell.source)
        self._check()

    def _check(self) -> None:
        seen = set()
        for cell in self.notebook.cells:
            marks = cell.metadata.get("nbgrader")
            if marks is None:
                continue
            where = f"{self.path}: cell {marks.get('grade_id', '?')!r}"
            if not marks.get("grade_id") or marks["grade_id"] in seen:
                raise CourseError(f"{where}: expected a grade_id of its own")
            seen.add(marks["grade_id"])
            if marks.get("grade") and not marks.get("points", 0) > 0:
                raise CourseError(f"{where}: found {marks.get('points')!r} points, expected more than 0")
            if kind_of(cell) == "solution" and not any(inside for inside, _ in regions(cell.source, SOLUTION, where)):
                raise CourseError(f"{where}: a solution cell without ### BEGIN SOLUTION would release its solution")
        if not self.tests:
            raise CourseError(f"{self.path}: no test cell, expected cells with nbgrader metadata grade and points")

    def sources(self, *kinds: str) -> list[str]:
        """The sources of the cells of these kinds, in order."""
        return [cell.source for cell in self.notebook.cells if kind_of(cell) in kinds]

    @property
    def title(self) -> str:
        """The first heading."""
        lines = "\n".join(self.sources("prose")).split("\n")
        return next((line[2:].strip() for line in lines if line.startswith("# ")), self.name)

    @cached_property
    def digest(self) -> str:
        """Of everything that can change a grade: kinds, points and sources of the cells that count."""
        counted = [[kind_of(cell), cell.metadata.get("nbgrader", {}).get("points"), cell.source]
                   for cell in self.notebook.cells if kind_of(cell) in ("given", "solution", "test", "written")]
        return hashlib.sha256(json.dumps(counted).encode()).hexdigest()[:16]

    @cached_property
    def tests(self) -> list[Test]:
        """The test cells, in order; the first comment of a cell is its title."""
        found = []
        for cell in self.notebook.cells:
            if kind_of(cell) == "test":
                marks, first = cell.metadata["nbgrader"], cell.source.split("\n")[0]
                title = first.lstrip("# ").strip() if first.startswith("#") else marks["grade_id"]
                found.append(Test(marks["grade_id"], title, float(marks["points"]), cell.source))
        return found

    @cached_property
    def questions(self) -> list[Question]:
        """The written questions, in order."""
        found, before = [], ""
        for cell in self.notebook.cells:
            if kind_of(cell) == "written":
                marks = cell.metadata["nbgrader"]
                found.append(Question(marks["grade_id"], float(marks["points"]), before, cell.source))
            before = cell.source if kind_of(cell) == "prose" else before
        return found

    @cached_property
    def functions(self) -> list[str]:
        """The names of the functions that the student writes."""
        trees = [ast.parse(source) for source in self.sources("solution")]
        return [node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)]

    @property
    def max_score(self) -> float:
        """Points of all tests; written answers are a human's."""
        return sum(test.points for test in self.tests)


def find_assignments(folder: str | Path, names: Sequence[str] = ()) -> list[Assignment]:
    """The assignments in the folders of ``folder``: those of these names, or all, by name.

    Raises UnknownNameError for a name that is not there, CourseError where there are none.
    """
    paths = {path.parent.name: path for path in sorted(Path(folder).glob("*/instructor.ipynb"))}
    if not paths:
        raise CourseError(f"no assignments in {folder}: expected folders with an instructor.ipynb")
    for name in names:
        if name not in paths:
            raise unknown_name("assignment", name, paths)
    return [Assignment(paths[name]) for name in names or paths]
