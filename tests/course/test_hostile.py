"""Hostile and careless submissions: each gets the points for what it did, a message, and the class's run goes on."""

import os
import shutil

import pytest
from hostile import CARELESS, CASES, HOSTILE, Case
from sums import make_assignment

from zsar.course import grade as grading
from zsar.course.grade import Grade, grade_class
from zsar.course.sandbox import Limits, Sandbox
from zsar.course.session import LocalSession
from zsar.course.submissions import Submission

LONG = bool(os.environ.get("ZSAR_LONG"))
#: Graded by itself: it is given little memory and much time, the others the reverse.
ALONE = "memory bomb"
#: Of what can be done in a cell as in a function, the function is enough.
LEFT_OUT = () if LONG else ("infinite loop in a cell", "os._exit(0) in a cell")
#: What is graded as a class, in the sandbox.
SHUT_IN = {name: case for name, case in (CASES if LONG else HOSTILE).items() if name not in (ALONE, *LEFT_OUT)}
#: What never ends on its own is waited for no longer than it takes to see that.
QUICK = Limits(seconds=3, grace=5)
needs_bwrap = pytest.mark.skipif(not shutil.which("bwrap"), reason="no bubblewrap here")


class HereSession(LocalSession):
    """Stands in for a process of the student's."""

    printed = ""

    def __init__(self, assignment, cells, sandbox):
        super().__init__(assignment, cells)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def check(case: Case, grade: Grade) -> None:
    """The grade is what the case deserves, and says why."""
    assert (grade.score, grade.status) == (case.score, case.status), grade
    assert case.says.lower() in f"{grade.message} {grade.failures} {grade.outcomes}".lower()


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """All that is shut in as one class, graded at once."""
    folder = tmp_path_factory.mktemp("class")
    assignment = make_assignment(folder / "assignments")
    (folder / "handed-in").mkdir()
    for name, case in SHUT_IN.items():
        case.make(assignment, folder / "handed-in" / f"{name.replace('/', '-')}.ipynb")
    grades = grade_class(folder / "handed-in", folder / "grades.csv", [assignment], sandbox=Sandbox(limits=QUICK),
                         secret="s")
    return {grade.student: grade for grade in grades}


@needs_bwrap
@pytest.mark.parametrize("name", SHUT_IN)
def test_a_submission_gets_what_it_deserves(graded, name):
    check(SHUT_IN[name], graded[name])


@needs_bwrap
def test_what_takes_all_memory_is_stopped_for_it(assignment, tmp_path):
    """A busy machine needed three seconds of the processor to give 800 MB."""
    HOSTILE[ALONE].make(assignment, tmp_path / "eve.ipynb")
    sandbox = Sandbox(limits=Limits(memory=2**30, seconds=60))
    found = grading.grade(Submission("eve", tmp_path / "eve.ipynb"), [assignment], sandbox)
    check(HOSTILE[ALONE], found)
    assert "took more than 1 GB of memory" in str(found.failures)  # and met no limit of the system's own


@needs_bwrap
def test_nobody_is_lost(graded):
    assert set(graded) == set(SHUT_IN)


@pytest.mark.parametrize("name", CARELESS)
def test_a_careless_submission_gets_what_it_deserves(name, assignment, tmp_path, monkeypatch):
    monkeypatch.setattr(grading, "WorkerSession", HereSession)
    (tmp_path / "in").mkdir()
    CARELESS[name].make(assignment, tmp_path / "in" / "ada.ipynb")
    check(CARELESS[name], grading.grade(Submission("ada", tmp_path / "in" / "ada.ipynb"), [assignment], None))
