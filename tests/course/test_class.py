"""A simulated class on the real assignments, in the real sandbox: nobody lost, every grade as due.

Each time a class of one, who made one mistake; with ``make test LONG=1`` of 200, all kinds of work on all assignments.
"""

import os
import shutil

import pytest
from class_of import wrong_grades

N = 200 if os.environ.get("ZSAR_LONG") else 1


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """All grades, and of those that are not what is due, what was."""
    if not shutil.which("bwrap"):
        pytest.skip("no bubblewrap here: student code cannot be isolated")
    return wrong_grades(N, tmp_path_factory.mktemp("class"))


def test_nobody_is_lost(graded):
    assert len(graded[0]) == N


@pytest.mark.parametrize("number", range(N))
def test_every_grade_is_what_is_due(number, graded):
    grades, wrong = graded
    assert grades[number].student not in wrong, (grades[number], wrong)
