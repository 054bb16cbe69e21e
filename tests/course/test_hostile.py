"""Hostile and careless submissions: each gets the points for what it did, a message, and the class's run goes on."""

import shutil

import pytest
from hostile import CASES
from sums import make_assignment

from zsar.course.grade import grade_class
from zsar.course.sandbox import Sandbox

pytestmark = pytest.mark.skipif(not shutil.which("bwrap"), reason="no bubblewrap here: student code cannot be isolated")


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """All cases as one class, graded at once."""
    folder = tmp_path_factory.mktemp("class")
    assignment = make_assignment(folder / "assignments")
    (folder / "handed-in").mkdir()
    for name, case in CASES.items():
        case.make(assignment, folder / "handed-in" / f"{name.replace('/', '-')}.ipynb")
    grades = grade_class(folder / "handed-in", folder / "grades.csv", [assignment], sandbox=Sandbox(), secret="s")
    return {grade.student: grade for grade in grades}


@pytest.mark.parametrize("name", CASES)
def test_a_submission_gets_what_it_deserves(graded, name):
    case, grade = CASES[name], graded[name]
    assert (grade.score, grade.status) == (case.score, case.status), grade
    assert case.says.lower() in f"{grade.message} {grade.failures} {grade.outcomes}".lower()


def test_nobody_is_lost(graded):
    assert set(graded) == set(CASES)
