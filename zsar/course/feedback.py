"""A page a student: what was tested, what it said, and what of the notebook did not run."""

from pathlib import Path
from typing import TYPE_CHECKING

from zsar.html import renderer

if TYPE_CHECKING:
    from zsar.course.grade import Grade

render = renderer(Path(__file__).parent / "templates")
PRINTED = 2000  # characters


def feedback_page(grade: "Grade", title: str) -> str:
    """The page as HTML that needs no other file."""
    return render("feedback.html", grade=grade, title=title or grade.assignment or "Submission",
                  share=grade.score / grade.max if grade.max else 0.0, printed=grade.printed[:PRINTED])
