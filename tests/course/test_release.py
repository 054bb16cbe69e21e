"""The student's notebook: nothing of the solution, the hidden tests or the commentary; bad sources are refused."""

import json

import nbformat
import pytest
import yaml
from sums import APPLY, DOUBLE, make_assignment
from wrong import ASSIGNMENTS, NAMES, ROOT

from zsar.__main__ import main
from zsar.course import release
from zsar.course.assignment import Assignment, kind_of
from zsar.course.command import REPOSITORY
from zsar.errors import CourseError


def test_the_students_notebook_holds_no_secret(assignment):
    text = release.text(assignment, "https://github.com/OWNER/book")
    for secret in ("return 2 * x", "hidden_seed(\\\"double", "also for other inputs", "secret hint", "Rubric"):
        assert secret not in text, secret
    assert "raise NotImplementedError()" in text
    assert "YOUR ANSWER HERE" in text
    assert "https://colab.research.google.com/github/OWNER/book/blob/main/book/assignments/sums/student.ipynb" in text
    metadata = json.loads(text)["metadata"]
    assert metadata["zsar"] == {"assignment": "sums", "source": assignment.digest}
    assert {name: metadata[name] for name in release.RUNTIME} == release.RUNTIME


def test_a_stub_keeps_the_indentation_and_the_given_lines():
    source = "def f(x):\n    if x:\n        ### BEGIN SOLUTION\n        x += 1\n        ### END SOLUTION\n    return x"
    assert release.without_solution(source, "here") == (
        "def f(x):\n    if x:\n        # YOUR CODE HERE\n        raise NotImplementedError()\n    return x")


@pytest.mark.parametrize(("double", "says"), [
    ("def double(x):\n    ### BEGIN SOLUTION\n    return x\n    ### END SOLUTION", "the solution fails the test"),
    ("def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x", "has no ### END SOLUTION"),
    ("def double(x):\n    ### END SOLUTION\n    return 2 * x\n    ### BEGIN SOLUTION", "outside a region"),
    ("def double(x):\n    return 2 * x", "would release its solution"),
    ("def double(x):\n    return 2 * x\n    ### BEGIN SOLUTION\n    ### END SOLUTION", "of the blank fails"),
    ("no_such_name\n" + DOUBLE, "a cell of the solution fails"),
])
def test_a_bad_source_is_refused(tmp_path, double, says):
    with pytest.raises(CourseError, match=says):
        release.check(make_assignment(tmp_path, double=double))


def test_a_stub_line_that_the_solution_lacks_is_found():
    assert release.stub_lines_missing("def f():\n    x = ...\n    return x", "def f():\n    x = 1\n    return x") == [
        "    x = ..."]


def test_any_number_of_assignments_is_released(tmp_path, capsys):
    make_assignment(tmp_path, "first")
    make_assignment(tmp_path, "second")
    assert main(["course", "release", "--assignments", str(tmp_path)]) == 0
    assert "10 points in 4 tests, 5 in written answers" in capsys.readouterr().out
    assert main(["course", "release", "--check", "--assignments", str(tmp_path)]) == 0
    stale = tmp_path / "second" / "student.ipynb"
    stale.write_text(stale.read_text().replace("Why?", "Why not?"))
    assert main(["course", "release", "--check", "--assignments", str(tmp_path)]) == 1
    assert "second" in capsys.readouterr().out


@pytest.mark.parametrize(("change", "says"), [
    (lambda cells: cells.clear(), "no test cell"),
    (lambda cells: cells[2]["metadata"]["nbgrader"].update(grade_id="apply"), "a grade_id of its own"),
    (lambda cells: cells[5]["metadata"]["nbgrader"].update(points=0), "0 points"),
])
def test_a_notebook_that_is_no_assignment_is_refused(tmp_path, change, says, capsys):
    path = make_assignment(tmp_path).path
    notebook = json.loads(path.read_text())
    change(notebook["cells"])
    path.write_text(json.dumps(notebook))
    assert main(["course", "release", "--assignments", str(tmp_path)]) == 2
    assert says in capsys.readouterr().err


def test_no_assignments_is_one_line(tmp_path, capsys):
    assert main(["course", "release", "--assignments", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_measured_number_is_released_and_shown_without_its_name(tmp_path):
    path = make_assignment(tmp_path).path
    named = path.read_text().replace("Why?", "Why 72<!--measured fare clean--> %?").replace(
        "Because.", "Because of 4<!--measured lost-->.")
    path.write_text(named)
    assignment = Assignment(path)
    assert "Why 72 %?" in release.text(assignment, "") and "measured" not in release.text(assignment, "")
    assert "Because of 4." in assignment.questions[0].answer


@pytest.mark.parametrize("name", NAMES)
def test_committed_student_notebooks_are_what_is_released(name):
    assignment = Assignment(ASSIGNMENTS / name / "instructor.ipynb")
    assert (ASSIGNMENTS / name / "student.ipynb").read_text(encoding="utf-8") == release.text(assignment, REPOSITORY)


@pytest.mark.parametrize("name", NAMES)
def test_a_student_notebook_is_valid_and_has_no_outputs(name):
    notebook = nbformat.read(ASSIGNMENTS / name / "student.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not [cell for cell in notebook.cells if cell.get("outputs") or kind_of(cell) == "commentary"]


def test_the_repository_is_the_books():
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert config["repository"]["url"] == REPOSITORY


def test_solution_of_the_small_assignment_passes(assignment):
    assert "return 2 * x" in DOUBLE and "net(x)" in APPLY  # what the other tests take out
    found = release.check(assignment)
    assert sum(one.earned for one in found["solution"]) == 10
