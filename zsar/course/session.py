"""The student's functions as the tests see them: names that send their arguments away and return what comes back."""

import io
import math
import time
from collections.abc import Sequence
from typing import Protocol

from zsar.course import wire
from zsar.course.assignment import Assignment
from zsar.course.given import recipe_of
from zsar.course.kernel import ALL_CELLS_SECONDS, Kernel, failure
from zsar.course.process import Ended, StudentProcess
from zsar.course.sandbox import Sandbox
from zsar.course.worker import packed

IMPORT_SECONDS = 120.0
ALL_SECONDS = 150.0  # of the calls of one submission, by the clock
STARTS = 8  # of its process


class StudentError(Exception):
    """What a student's function did instead of returning: ``kind``, a message, lines of the student's own code."""

    def __init__(self, kind: str, message: str, trace: Sequence[str] = ()):
        super().__init__(f"{kind}: {message}" if message else kind)
        self.kind, self.message, self.trace = kind, message, list(trace)


class Session(Protocol):
    """Where student's functions run."""

    failures: list[dict]

    def exchange(self, request: bytes, function: str) -> dict:
        """Send a call and return the answer, {value} or {error}."""


class StudentFunction:
    """A function in a session, called as any other. Raises StudentError for whatever is not a returned value."""

    def __init__(self, session: Session, name: str, given: bool = False):
        self.session, self.__name__, self.given = session, name, given

    def __call__(self, *arguments, **named):
        request = {"function": self.__name__, "given": self.given, "arguments": list(arguments), "named": named}
        called = next((thing.__name__ for thing in arguments if isinstance(thing, StudentFunction)), self.__name__)
        answer = self.session.exchange(wire.pack(request, _special), called)
        if isinstance(answer, dict) and "value" in answer:
            return answer["value"]
        error = answer.get("error") if isinstance(answer, dict) else None
        if not isinstance(error, dict):
            raise StudentError("ForeignAnswer", "the process of the notebook sent something that is no answer")
        raise StudentError(str(error.get("type")), str(error.get("message")), list(map(str, error.get("trace") or [])))


def _special(thing: object) -> dict | None:
    """How a message names what is no plain value."""
    if isinstance(thing, StudentFunction):
        return {"function": thing.__name__}
    recipe = recipe_of(thing)
    return recipe and {"given": list(recipe)}


class LocalSession:
    """In this very process, without protection or limits of memory: for the instructor's own solutions only."""

    def __init__(self, assignment: Assignment, cells: Sequence[tuple[int, str]]):
        self._kernel = Kernel(assignment.sources("given"))
        self.failures = self._kernel.run(cells)

    def exchange(self, request: bytes, function: str) -> dict:
        """As a worker would, to the byte."""
        answer = self._kernel.answer(wire.read(io.BytesIO(request), self._kernel.special))
        return wire.read(io.BytesIO(packed(answer)))


class WorkerSession:
    """In a process of its own, which is started anew when it dies; what killed it is not done again.

    Raises nothing on bad submissions: ``failures`` says which cells failed, and each call what became of it.
    """

    def __init__(self, assignment: Assignment, cells: Sequence[tuple[int, str]], sandbox: Sandbox):
        self._given, self._cells, self._sandbox = assignment.sources("given"), list(cells), sandbox
        self._patience = sandbox.limits.seconds + sandbox.limits.grace
        self._until, self._starts, self._process = math.inf, 0, None
        self._fatal: dict[str, str] = {}  # functions that ended the process
        self.failures: list[dict] = []
        self.printed = ""

    def __enter__(self) -> "WorkerSession":
        self._start()
        return self

    def __exit__(self, *error) -> None:
        self._stop()

    def exchange(self, request: bytes, function: str) -> dict:
        """Send a call and return its answer; a process that dies of it answers with an error."""
        if function in self._fatal:
            return failure("Ended", f"{self._fatal[function]} when it was called before")
        if self._process is None:
            self._start()
        if self._process is None:
            return failure("Ended", "the process of the notebook ended too often, or used up its "
                          f"{ALL_SECONDS:g} s; this was not tried")
        try:
            left = max(0.0, min(self._patience, self._until - time.monotonic()))
            self._process.send(request, left)
            return self._process.receive(left)
        except Ended as ended:
            self._fatal[function] = f"the process {ended}"
            self._stop()
            return failure("Ended", self._fatal[function])

    def _start(self) -> None:
        """A process that has run the cells; None if that cannot be had any more."""
        while self._process is None and self._starts < STARTS and time.monotonic() < self._until:
            self._starts += 1
            self._process, begun, at = StudentProcess(self._sandbox), False, None
            cells_until = time.monotonic() + IMPORT_SECONDS + 2 * ALL_CELLS_SECONDS
            try:
                self._process.send(wire.pack({"given": self._given, "cells": self._cells,
                                              "seconds": self._sandbox.limits.seconds}), IMPORT_SECONDS)
                self._process.receive(IMPORT_SECONDS)
                begun = True
                while "failures" not in (said := self._said(cells_until)):
                    at = said.get("at")
                self._note(said["failures"])
            except Ended as ended:
                self._stop()
                if not begun:  # before any cell of the student's: a fault of the machine or the assignment
                    raise RuntimeError(f"a student process could not begin: it {ended}; {self.printed}") from None
                self._leave_out(at, f"the process {ended}")
        if self._until == math.inf:  # what the cells took is not taken from the calls
            self._until = time.monotonic() + ALL_SECONDS

    def _said(self, until: float) -> dict:
        """What the process says while it runs the cells; nothing, where that is no dict. Raises Ended."""
        said = self._process.receive(min(self._patience, until - time.monotonic()))
        return said if isinstance(said, dict) else {}

    def _leave_out(self, at: object, error: str) -> None:
        """Do not run again the cell that ended the process: the one it said it was at, if it told the truth."""
        numbers = [number for number, _ in self._cells]
        guilty = at if isinstance(at, int) and at in numbers else numbers[-1] if numbers else None
        self._note([{"cell": guilty, "error": error}])
        self._cells = [cell for cell in self._cells if cell[0] != guilty]

    def _note(self, failures: object) -> None:
        """Add what is well formed of what a process says of its cells."""
        numbers = {number for number, _ in self._cells}
        known = {one["cell"]: one for one in self.failures}
        for one in failures if isinstance(failures, list) else []:
            if isinstance(one, dict) and isinstance(one.get("cell"), int) and one["cell"] in numbers:
                known[one["cell"]] = {"cell": one["cell"], "error": str(one.get("error"))[:500]}
        self.failures = [known[number] for number in sorted(known)]

    def _stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self.printed = self.printed or self._process.printed.decode(errors="replace")
            self._process = None

