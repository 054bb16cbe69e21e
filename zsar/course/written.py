"""Written answers, laid out for the human who reads them: a page with the rubric, and a sheet to fill in."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zsar.course.assignment import SOLUTION, Assignment, Question, regions
from zsar.course.feedback import render
from zsar.course.submissions import plain
from zsar.errors import CourseError, first_line
from zsar.outputs import write_atomically

if TYPE_CHECKING:
    from zsar.course.grade import Grade

SHEET = ("student", "assignment", "question", "points", "max")


def write_answers(grades: "Sequence[Grade]", assignments: Sequence[Assignment], folder: Path) -> None:
    """Write ``written.html``, all answers below their question, model answer and rubric, and ``written.csv``.

    The sheet has a row an answer, its points to be filled in; one that is there is not overwritten, for somebody may
    have begun: the new one is then ``written-new.csv``. Raises OutputError.
    """
    sections = [(assignment, question, [(one.student, one.answers[question.id]) for one in grades
                                        if one.assignment == assignment.name and question.id in one.answers])
                for assignment in assignments for question in assignment.questions]
    text = io.StringIO()
    sheet = csv.writer(text, lineterminator="\n")
    sheet.writerow(SHEET)
    for assignment, question, answers in sections:
        sheet.writerows([plain(student), assignment.name, question.id, "" if answer else 0, f"{question.points:g}"]
                        for student, answer in answers)
    page = render("written.html", sections=[
        {"title": assignment.title, "question": question, "model": model_answer(question), "answers": answers}
        for assignment, question, answers in sections if answers])
    write_atomically(folder / "written.html", page.encode())
    path, content = folder / "written.csv", text.getvalue().encode()
    if path.exists() and path.read_bytes() != content:
        path = folder / "written-new.csv"
    write_atomically(path, content)


def model_answer(question: Question) -> str:
    """The model answer with its rubric, without the marks around it."""
    return "\n".join(line for _, lines in regions(question.answer, SOLUTION, question.id) for line in lines).strip()


def read_points(path: str | Path) -> dict[tuple[str, str], tuple[float, float]]:
    """Points and maximum of (student, assignment) in a filled sheet, summed. Raises CourseError for a bad row."""
    sums: dict[tuple[str, str], tuple[float, float]] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CourseError(f"cannot read {path} ({first_line(error)}): expected a CSV file in UTF-8") from error
    for number, row in enumerate(lines, 2):
        try:
            points, most = float(row["points"] or "nan"), float(row["max"])
        except (KeyError, TypeError, ValueError) as error:
            raise CourseError(f"{path}, line {number}: expected the columns {', '.join(SHEET)} and numbers") from error
        if not 0 <= points <= most:
            raise CourseError(f"{path}, line {number}: found {row['points']!r} points for {row['student']}, expected a "
                              f"number from 0 to {most:g}")
        key = (row["student"], row["assignment"])
        before = sums.get(key, (0.0, 0.0))
        sums[key] = (before[0] + points, before[1] + most)
    return sums
