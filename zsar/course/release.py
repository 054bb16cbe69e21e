"""The student's notebook from the instructor's: without solutions, hidden tests, commentary and outputs."""

import copy
import re

import nbformat

from zsar.course.assignment import HIDDEN, SOLUTION, Assignment, kind_of, regions
from zsar.course.judge import Judge, Outcome
from zsar.course.session import LocalSession
from zsar.errors import CourseError
from zsar.outputs import write_atomically

STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")  # nbgrader's own
ANSWER = "YOUR ANSWER HERE"
COLAB = "https://colab.research.google.com"
#: What Colab reads of a notebook: a runtime with a GPU, of the kind that is free.
RUNTIME = {"accelerator": "GPU", "colab": {"provenance": [], "gpuType": "T4"}}


def student_notebook(assignment: Assignment, repository: str) -> nbformat.NotebookNode:
    """The notebook that is released; ``repository`` is the address of the book, ``https://github.com/OWNER/NAME``."""
    notebook = copy.deepcopy(assignment.notebook)
    notebook.cells = [cell for cell in notebook.cells if kind_of(cell) != "commentary"]
    for cell in notebook.cells:
        where = f"{assignment.path}: cell {cell.metadata.get('nbgrader', {}).get('grade_id', '?')!r}"
        kind = kind_of(cell)
        cell.source = (without_solution(cell.source, where) if kind == "solution" else
                       without_hidden_tests(cell.source, where) if kind == "test" else
                       ANSWER if kind == "written" else cell.source)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    path = f"book/assignments/{assignment.name}/student.ipynb"
    badge = f"[Open this assignment on Colab]({COLAB}/github/{repository.removeprefix('https://github.com/')}/blob/main/{path})"
    notebook.cells[0].source = re.sub(r"(?m)^(# .*)$", rf"\1\n\n{badge}", notebook.cells[0].source, count=1)
    notebook.metadata = nbformat.from_dict({
        **RUNTIME, "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"}, "zsar": {"assignment": assignment.name, "source": assignment.digest}})
    return notebook


def without_solution(source: str, where: str) -> str:
    """A solution cell as a stub. Raises CourseError where the marks do not pair."""
    lines = []
    for inside, part in regions(source, SOLUTION, where):
        if inside:
            first = next((line for line in part if line.strip()), "")
            lines += [first[:len(first) - len(first.lstrip())] + line for line in STUB]
        else:
            lines += part
    return "\n".join(lines)


def without_hidden_tests(source: str, where: str) -> str:
    """A test cell as the student sees it. Raises CourseError where the marks do not pair."""
    return "\n".join(line for inside, part in regions(source, HIDDEN, where) if not inside for line in part).rstrip()


def stub_lines_missing(stub: str, solution: str) -> list[str]:
    """Lines of a stub that its solution lacks; a student who fills the stub in would have to delete them."""
    known = {line.strip() for line in solution.split("\n")} | set(STUB) | {""}
    return [line for line in stub.split("\n") if line.strip() not in known]


def check(assignment: Assignment, judge: Judge | None = None) -> dict[str, list[Outcome]]:
    """Grade solution and blank, here. Raises CourseError unless one has all points and the other none."""
    judge = judge or Judge(assignment)
    student = student_notebook(assignment, "")
    stubs = [cell.source for cell in student.cells if kind_of(cell) == "solution"]
    for stub, solution in zip(stubs, assignment.sources("solution"), strict=True):
        if missing := stub_lines_missing(stub, solution):
            raise CourseError(f"{assignment.path}: the stub has the line {missing[0].strip()!r}, the solution lacks it")
    found = {}
    for name, cells in {"solution": assignment.sources("solution"), "blank": stubs}.items():
        session = LocalSession(assignment, list(enumerate(cells)))
        if session.failures:
            raise CourseError(f"{assignment.path}: a cell of the {name} fails: {session.failures[0]['error']}")
        found[name] = judge.outcomes(session)
    if lost := [one for one in found["solution"] if one.verdict != "passed"]:
        raise CourseError(f"{assignment.path}: the solution fails the test {lost[0].id!r}: {lost[0].message}")
    if odd := [one for one in found["blank"] if one.verdict != "not implemented"]:
        raise CourseError(f"{assignment.path}: on the blank, the test {odd[0].id!r} ends as {odd[0].verdict!r} "
                          f"({odd[0].message}); expected NotImplementedError")
    return found


def text(assignment: Assignment, repository: str) -> str:
    """The student notebook as a file holds it."""
    return nbformat.writes(student_notebook(assignment, repository)) + "\n"


def write(assignment: Assignment, repository: str) -> None:
    """Check an assignment, then write its student notebook beside it. Raises CourseError, OutputError."""
    check(assignment)
    write_atomically(assignment.path.with_name("student.ipynb"), text(assignment, repository).encode())
