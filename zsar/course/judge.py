"""The tests of an assignment on the functions of one submission. Only code of the instructor's runs here."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from zsar.course.assignment import Assignment, Test
from zsar.course.kernel import CellTimeout, describe, limited, statements
from zsar.course.session import Session, StudentError, StudentFunction
from zsar.course.wire import WireError

MOST_TEXT = 1000  # characters of a message
TEST_SECONDS = 60.0  # of the processor, in this process


@dataclass
class Outcome:
    """What became of a test: ``passed``, ``failed``, ``not implemented``, or ``error`` in the student's function."""

    id: str
    title: str
    points: float
    earned: float
    verdict: str
    message: str = ""
    trace: list[str] = field(default_factory=list)


class Judge:
    """Judges submissions of one assignment; what the assignment gives is made once, each test begins with it anew."""

    def __init__(self, assignment: Assignment):
        self.assignment = assignment
        self._given: dict = {"__name__": "__main__"}
        with contextlib.redirect_stdout(io.StringIO()):
            for number, source in enumerate(assignment.sources("given")):
                for code in statements(source, f"<given {number}>"):
                    exec(code, self._given)

    def outcomes(self, session: Session, tests: Sequence[Test] | None = None) -> list[Outcome]:
        """The outcome of each test, by default of all, in order."""
        return [self._outcome(test, session) for test in (self.assignment.tests if tests is None else tests)]

    def _outcome(self, test: Test, session: Session) -> Outcome:
        verdict, message, trace = self._verdict(test, session)
        return Outcome(test.id, test.title, test.points, test.points if verdict == "passed" else 0.0, verdict,
                       message[:MOST_TEXT], [line[:MOST_TEXT] for line in trace][:5])

    def _verdict(self, test: Test, session: Session) -> tuple[str, str, Sequence[str]]:
        """Run a test. Whatever it raises is about the student's work, since the solution was seen to pass."""
        names = self._given | {name: StudentFunction(session, name) for name in self.assignment.functions}
        names["remotely"] = lambda function: StudentFunction(session, function.__name__, given=True)
        try:
            with contextlib.redirect_stdout(io.StringIO()), limited(TEST_SECONDS):
                for code in statements(test.source, f"<test {test.id}>"):
                    exec(code, names)
        except StudentError as error:
            kind = "not implemented" if error.kind == "NotImplementedError" else "error"
            return kind, "" if kind == "not implemented" else str(error), error.trace
        except CellTimeout:  # of ours, on what was returned
            return "failed", f"the check was not done with what was returned after {TEST_SECONDS:g} s", ()
        except AssertionError as error:
            return "failed", str(error) or "the check failed", ()
        except WireError as error:
            return "error", f"the check passed {error}", ()
        except Exception as error:  # a returned value that the test could not work with: None, a list, another shape
            found = describe(error, own="<test ")
            return "failed", f"the check could not use what was returned ({found['type']}: {found['message']})", ()
        return "passed", "", ()


@cache
def judge_of(path: str, digest: str) -> Judge:
    """The judge of an assignment, made once a process."""
    return Judge(Assignment(path))
