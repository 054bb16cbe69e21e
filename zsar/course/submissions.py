"""Whose work lies where, and what a notebook that somebody handed in holds. Nothing in it is run or trusted."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zsar.course.assignment import Assignment, Question, kind_of
from zsar.course.release import ANSWER, student_notebook
from zsar.course.wire import clean
from zsar.errors import CourseError, first_line

LARGEST = 100 * 2**20  # bytes of a notebook; its outputs are thrown away
MOST_CODE = 2 * 2**20
LONGEST_ANSWER = 20_000  # characters


class SubmissionError(ValueError):
    """A submission that holds no work that could be graded; the message is for the student."""


@dataclass(frozen=True)
class Submission:
    """One notebook of one student, or a file that should have been one."""

    student: str
    path: Path


@dataclass(frozen=True)
class Work:
    """What counts of a notebook: the assignment it says it is, its code cells by number from 1, its texts."""

    says: str | None
    cells: list[tuple[int, str]]
    texts: list[tuple[str | None, str]]  # grade_id and text of each markdown cell


def find_submissions(folder: str | Path) -> list[Submission]:
    """A notebook a file, or a folder a student, in order. Raises CourseError where there is nothing."""
    folder, found = Path(folder), []
    if not folder.is_dir():
        raise CourseError(f"no folder {folder}: expected one with a notebook, or a folder of notebooks, a student")
    for place in sorted(path for path in folder.iterdir() if not _hidden(path, folder)):
        if place.is_dir() and not place.is_symlink():
            notebooks = [path for path in sorted(place.rglob("*.ipynb")) if not _hidden(path, folder)]
            found += [Submission(clean(place.name), path) for path in notebooks or [place]]
        else:
            found.append(Submission(clean(place.stem), place))
    if not found:
        raise CourseError(f"nothing to grade in {folder}: expected notebooks, or a folder of notebooks a student")
    return found


def _hidden(path: Path, folder: Path) -> bool:
    """Whether a file is no work of anybody's: checkpoints of an editor, what an archive of macOS adds."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(folder).parts)


def read_work(path: Path) -> Work:
    """What a notebook holds. Raises SubmissionError."""
    notebook = _parsed(path)
    cells = [cell for cell in notebook["cells"] if isinstance(cell, dict)]
    code = [_source(cell) for cell in cells if cell.get("cell_type") == "code"]
    if sum(map(len, code)) > MOST_CODE:
        raise SubmissionError(f"the notebook holds more than {MOST_CODE // 2**20} MB of code")
    texts = [(_marks(cell).get("grade_id"), _source(cell)) for cell in cells if cell.get("cell_type") == "markdown"]
    return Work(_says(notebook), list(enumerate(code, 1)), texts)


def _parsed(path: Path) -> dict:
    """The notebook as JSON."""
    if path.is_dir():
        raise SubmissionError("the folder holds no notebook (.ipynb)")
    if path.is_symlink():
        raise SubmissionError("the file is a link, not a notebook")
    if not path.is_file():
        raise SubmissionError("this is no ordinary file")
    if path.suffix != ".ipynb":
        raise SubmissionError(f"the file is no notebook: found {clean(path.suffix) or 'no ending'}, expected .ipynb")
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise SubmissionError(f"the notebook has {size // 2**20} MB, expected at most {LARGEST // 2**20}: clear "
                                  "its outputs, save it and hand it in again")
        notebook = json.loads(path.read_bytes())
    except OSError as error:
        raise SubmissionError(f"the file cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise SubmissionError(f"the file is no notebook, for it is not JSON ({first_line(error)})") from error
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise SubmissionError("the file is no notebook of format 4: it has no list of cells")
    return notebook


def _source(cell: dict) -> str:
    source = cell.get("source", "")
    return clean("".join(map(str, source)) if isinstance(source, list) else str(source))


def _inner(thing: dict, *names: str) -> dict:
    """The dict in the dicts of these names, or an empty one."""
    for name in names:
        thing = thing.get(name)
        if not isinstance(thing, dict):
            return {}
    return thing


def _marks(cell: dict) -> dict:
    return _inner(cell, "metadata", "nbgrader")


def _says(notebook: dict) -> str | None:
    name = _inner(notebook, "metadata", "zsar").get("assignment")
    return name if isinstance(name, str) else None


def choose(work: Work, assignments: Sequence[Assignment]) -> Assignment:
    """The assignment that a notebook belongs to: the one it names, else the one whose functions it defines most of.

    Raises SubmissionError for another one, or none.
    """
    names = [assignment.name for assignment in assignments]
    if work.says is not None:
        if work.says not in names:
            raise SubmissionError(f"this is the notebook of {work.says[:80]!r}; expected {' or '.join(names)}")
        return assignments[names.index(work.says)]
    defined = set(re.findall(r"^def (\w+)\(", "\n".join(source for _, source in work.cells), re.MULTILINE))
    best = max(assignments, key=lambda assignment: len(defined & set(assignment.functions)))
    if not defined & set(best.functions):
        raise SubmissionError(f"the notebook defines none of the functions of {' or '.join(names)}")
    return best


def own_cells(work: Work, assignment: Assignment) -> list[tuple[int, str]]:
    """The code cells that are the student's: not those that were given, shown or tested as they stand."""
    released = {cell.source.strip() for cell in student_notebook(assignment, "").cells
                if kind_of(cell) in ("given", "demo", "test")}
    return [(number, source) for number, source in work.cells if source.strip() and source.strip() not in released]


def answer_to(question: Question, work: Work) -> str:
    """What the student wrote: in the cell that was meant for it, else after the question; empty if nothing."""
    texts = [text for _, text in work.texts]
    found = [text for id_, text in work.texts if id_ == question.id]
    if not found and question.text in texts:  # an editor that drops metadata
        after = texts.index(question.text) + 1
        found = texts[after:after + 1]
    text = found[0].strip() if found else ""
    return "" if text == ANSWER else text[:LONGEST_ANSWER]


def plain(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
