"""Solutions have all points, blanks none, and each wrong solution loses the points it should and no others."""

from functools import cache
from itertools import product

import pytest
from wrong import ASSIGNMENTS, NAMES, Mutant, concerned, mutants

from zsar.course import release
from zsar.course.assignment import Assignment
from zsar.course.judge import Judge
from zsar.course.session import LocalSession

#: Wrong solutions of an assignment that are tried each time, at equal distances in the list; all, with LONG=1.
USUAL = 1


@cache
def judge(name: str) -> Judge:
    return Judge(Assignment(ASSIGNMENTS / name / "instructor.ipynb"))


def seeded() -> list:
    """Assignments with instructors' seeds, marked ``long`` but for one seed of those whose tests train by it."""
    usual = {("tecoa-from-the-equation", "spring"), ("prompts", "spring")}
    return [pytest.param(*pair, marks=[] if pair in usual else pytest.mark.long)
            for pair in product(NAMES, ("", "spring", "autumn"))]


@pytest.mark.parametrize(("name", "secret"), seeded())
def test_solution_has_all_points_and_blank_none_whatever_the_instructors_seed(name, secret, monkeypatch):
    monkeypatch.setenv("ZSAR_COURSE_SEED", secret)  # without one: as the instructor's notebook itself runs, by nbval
    found = release.check(judge(name).assignment, judge(name))
    assert sum(one.earned for one in found["solution"]) == judge(name).assignment.max_score
    assert not any(one.earned for one in found["blank"])


@pytest.mark.parametrize("name", NAMES)
def test_there_are_at_least_five_wrong_solutions(name):
    assert len({mutant.name for mutant in mutants(name)}) >= 5


def each_mutant() -> list:
    """All wrong solutions, marked ``long`` but for the usual ones."""
    found = []
    for name in NAMES:
        every = mutants(name)
        for number, one in enumerate(every):
            usual = number * USUAL % len(every) < USUAL
            found.append(pytest.param(one, id=f"{name}: {one.name}", marks=[] if usual else pytest.mark.long))
    return found


@pytest.mark.parametrize("mutant", each_mutant())
def test_a_wrong_solution_loses_what_it_should(mutant: Mutant):
    about = judge(mutant.assignment)
    session = LocalSession(about.assignment, mutant.cells(about.assignment))
    outcomes = about.outcomes(session, concerned(about.assignment, mutant))
    lost = {one.id: one.message for one in outcomes if one.verdict != "passed"}
    assert set(lost) == mutant.loses, lost
