"""The student's functions as the tests see them: names that send their arguments away and return what comes back."""

import io
import time
from collections.abc import Sequence
from typing import Protocol

from zsar.course import wire
from zsar.course.assignment import Assignment
from zsar.course.kernel import CELL_SECONDS, Kernel, as_special
from zsar.course.process import Ended, StudentProcess
from zsar.course.sandbox import Sandbox
from zsar.course.worker import packed

CALL_SECONDS = 10.0  # of the processor, for one call of a student's function
GRACE = 15.0  # more, by the clock, until a process that does not stop by itself is ended
IMPORT_SECONDS = 120.0
ALL_SECONDS = 180.0  # of one submission, by the clock
STARTS = 5  # of its process


class StudentError(Exception):
    """What a student's function did instead of returning: ``kind``, a message, lines of the student's own code."""

    def __init__(self, kind: str, message: str, trace: Sequence[str] = ()):
        super().__init__(f"{kind}: {message}" if message else kind)
        self.kind, self.message, self.trace = kind, message, list(trace)


class Session(Protocol):
    """Where student's functions run."""

    failures: list[dict]

    def exchange(self, request: bytes, function: str, seconds: float) -> dict:
        """Send a call and return the answer, {value} or {error}."""


class StudentFunction:
    """A function in a session, called as any other. Raises StudentError for whatever is not a returned value."""

    def __init__(self, session: Session, name: str, given: bool = False):
        self.session, self.__name__, self.given = session, name, given

    def __call__(self, *arguments, **named):
        request = {"function": self.__name__, "given": self.given, "arguments": list(arguments), "named": named,
                   "seconds": CALL_SECONDS}
        called = next((thing.__name__ for thing in arguments if isinstance(thing, StudentFunction)), self.__name__)
        answer = self.session.exchange(wire.pack(request, _special), called, CALL_SECONDS)
        if isinstance(answer, dict) and "value" in answer:
            return answer["value"]
        error = answer.get("error") if isinstance(answer, dict) else None
        if not isinstance(error, dict):
            raise StudentError("ForeignAnswer", "the process of the notebook sent something that is no answer")
        raise StudentError(str(error.get("type")), str(error.get("message")), list(map(str, error.get("trace") or [])))


def _special(thing: object) -> dict | None:
    """How a message names what is no plain value."""
    return {"function": thing.__name__} if isinstance(thing, StudentFunction) else as_special(thing)


class LocalSession:
    """In this very process, without protection or limits of memory: for the instructor's own solutions only."""

    def __init__(self, assignment: Assignment, cells: Sequence[tuple[int, str]]):
        self._kernel = Kernel(assignment.sources("given"))
        self.failures = self._kernel.run(cells)

    def exchange(self, request: bytes, function: str, seconds: float) -> dict:
        """As a worker would, to the byte."""
        answer = self._kernel.answer(wire.read(io.BytesIO(request), self._kernel.special))
        return wire.read(io.BytesIO(packed(answer)))


class WorkerSession:
    """In a process of its own, which is started anew when it dies; what killed it is not done again.

    Raises nothing on bad submissions: ``failures`` says which cells failed, and each call what became of it.
    """

    def __init__(self, assignment: Assignment, cells: Sequence[tuple[int, str]], sandbox: Sandbox):
        self._given, self._cells, self._sandbox = assignment.sources("given"), list(cells), sandbox
        self._until, self._starts, self._process = time.monotonic() + ALL_SECONDS, 0, None
        self._fatal: dict[str, str] = {}  # functions and cells that ended the process
        self.failures: list[dict] = []
        self.printed = ""

    def __enter__(self) -> "WorkerSession":
        self._start()
        return self

    def __exit__(self, *error) -> None:
        self._stop()

    def exchange(self, request: bytes, function: str, seconds: float) -> dict:
        """Send a call and return its answer; a process that dies of it answers with an error."""
        if function in self._fatal:
            return _error("Ended", f"{self._fatal[function]} when it was called before")
        if self._process is None:
            self._start()
        if self._process is None:
            return _error("Ended", "the process of the notebook ended too often, or used up its "
                          f"{ALL_SECONDS:g} s; this was not tried")
        try:
            left = max(0.0, min(seconds + GRACE, self._until - time.monotonic()))
            self._process.send(request, left)
            return self._process.receive(left)
        except Ended as ended:
            self._fatal[function] = f"the process {ended}"
            self._stop()
            return _error("Ended", self._fatal[function])

    def _start(self) -> None:
        """A process that has run the cells; None if that cannot be had any more."""
        while self._process is None and self._starts < STARTS and time.monotonic() < self._until:
            self._starts += 1
            self._process = StudentProcess(self._sandbox)
            at = None
            try:
                self._process.send(wire.pack({"given": self._given, "cells": self._cells}), IMPORT_SECONDS)
                self._process.receive(IMPORT_SECONDS)
                while not (isinstance(said := self._process.receive(self._patience()), dict) and "failures" in said):
                    at = said.get("at") if isinstance(said, dict) else None
                self._note(said["failures"])
            except Ended as ended:
                self._stop()
                if at is None:  # before any cell of the student's: a fault of the machine or the assignment
                    raise RuntimeError(f"a student process could not begin: it {ended}; {self.printed}") from None
                self._note([{"cell": at, "error": f"the process {ended}"}])
                self._cells = [cell for cell in self._cells if cell[0] != at]

    def _patience(self) -> float:
        return max(0.0, min(CELL_SECONDS + GRACE, self._until - time.monotonic()))

    def _note(self, failures: object) -> None:
        """Add what is well formed of what a process says of its cells."""
        known = {one["cell"]: one for one in self.failures}
        for one in failures if isinstance(failures, list) else []:
            if isinstance(one, dict) and isinstance(one.get("cell"), int):
                known[one["cell"]] = {"cell": one["cell"], "error": str(one.get("error"))[:500]}
        self.failures = [known[number] for number in sorted(known)]

    def _stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self.printed = self.printed or self._process.printed.decode(errors="replace")
            self._process = None


def _error(kind: str, message: str) -> dict:
    return {"error": {"type": kind, "message": message, "trace": []}}
