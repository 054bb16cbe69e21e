"""A simulated class: right, wrong, blank, careless and hostile work on the real assignments, with the grades due.

``python tests/course/class_of.py 200`` grades one on this machine and says how long it took and what was wrong.
"""

import random
import sys
import time
from functools import cache
from pathlib import Path

import hostile
import nbformat
from nbformat.v4 import new_code_cell
from wrong import ASSIGNMENTS, NAMES, mutants

from zsar.course import release
from zsar.course.assignment import Assignment, kind_of
from zsar.course.grade import Grade, grade_class
from zsar.course.sandbox import Sandbox

#: Cells that do harm and take no points: the functions beside them are right.
HARM = {"endless cell": "while True:\n    pass", "fork bomb": hostile.FORKS, "exits": "import os\nos._exit(0)",
        "memory bomb": "hog = []\nwhile True:\n    hog.append(bytearray(10**8))", "patches": hostile.PATCHES,
        "forges": hostile.FORGES, "kills": hostile.KILLS, "deletes": hostile.DELETES, "asks": "n = int(input('n? '))",
        "lacks a package": "import no_such_package", "prints": "while True:\n    print('x' * 10**6)",
        "broken cell": "def broken(:\n    pass"}


@cache
def assignment(name: str) -> Assignment:
    return Assignment(ASSIGNMENTS / name / "instructor.ipynb")


def hand_in(name: str, path: Path, solutions: list[str] | None = None, before: str = "") -> None:
    """The student's notebook of a real assignment with its solution cells filled in."""
    notebook = release.student_notebook(assignment(name), "")
    if solutions is not None:
        cells = [cell for cell in notebook.cells if kind_of(cell) == "solution"]
        for cell, source in zip(cells, solutions, strict=True):
            cell.source = source
    if before:
        notebook.cells.insert(0, new_code_cell(before))
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def make_class(n: int, folder: Path) -> dict[str, tuple[str, float]]:
    """``n`` submissions in ``folder``; student -> status and score that are due."""
    due, chance = {}, random.Random(0)
    wrong = {name: mutants(name) for name in NAMES}
    for number in range(n):
        name = NAMES[number % len(NAMES)]
        about = assignment(name)
        kind = ("wrong", "right", "harm", "wrong", "blank", "unreadable")[number % 6]  # with five names: all pairs
        student, solutions = f"{number:03d} {kind}", about.sources("solution")
        path, score, status = folder / f"{student}.ipynb", about.max_score, "graded"
        if kind == "right":
            hand_in(name, path, solutions)
        elif kind == "wrong":
            mutant = chance.choice(wrong[name])
            hand_in(name, path, [source for _, source in mutant.cells(about)])
            score -= sum(test.points for test in about.tests if test.id in mutant.loses)
        elif kind == "harm":
            hand_in(name, path, solutions, before=chance.choice(sorted(HARM.items()))[1])
        elif kind == "blank":
            hand_in(name, path)
            score, status = 0.0, "blank"
        else:
            path.write_text(chance.choice(["", "{", "[1, 2]", '{"cells": 3}']))
            score, status = 0.0, "unreadable"
        due[student] = (status, score)
    return due


def wrong_grades(n: int, folder: Path) -> tuple[list[Grade], dict[str, tuple[str, float]]]:
    """Grade a class of ``n``: all grades, and of those that are not what is due, what was."""
    (folder / "in").mkdir(parents=True, exist_ok=True)
    due = make_class(n, folder / "in")
    grades = grade_class(folder / "in", folder / "grades.csv", [assignment(name) for name in NAMES], sandbox=Sandbox(),
                         jobs=2)
    assert {one.student for one in grades} == set(due), "somebody was lost"
    return grades, {one.student: due[one.student] for one in grades if (one.status, one.score) != due[one.student]}


if __name__ == "__main__":
    start = time.perf_counter()
    found, lost = wrong_grades(int(sys.argv[1]), Path(sys.argv[2]))
    slowest = max(found, key=lambda one: one.seconds)
    print(f"{len(found)} submissions in {time.perf_counter() - start:.0f} s; the slowest took {slowest.seconds:g} s "
          f"({slowest.student}); not as due: {lost}")
    for one in found:
        if one.student in lost:
            print(one.student, one.assignment, one.status, one.score,
                  [(out['id'], out['message']) for out in one.outcomes if out["verdict"] != "passed"], one.failures)
