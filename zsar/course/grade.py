"""A class graded: every submission in a process of its own, several at a time, resumable; grades, pages, answers."""

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from zsar import __version__
from zsar.course.assignment import Assignment
from zsar.course.feedback import feedback_page
from zsar.course.given import SEED
from zsar.course.judge import Judge, judge_of
from zsar.course.sandbox import Sandbox
from zsar.course.session import WorkerSession
from zsar.course.submissions import (
    LARGEST,
    Submission,
    SubmissionError,
    answer_to,
    choose,
    find_submissions,
    own_cells,
    plain,
    read_work,
)
from zsar.course.written import write_answers
from zsar.errors import CourseError
from zsar.outputs import writable_folder, write_atomically, write_json

ADDRESS = 8 * 2**30  # bytes that a grading process may map
COLUMNS = ("student", "assignment", "score", "max", "status")


@dataclass
class Grade:
    """What became of a submission.

    ``status``: ``graded``, ``blank`` (nothing was implemented), ``unreadable`` (nothing could be graded), or ``error``
    (a fault of the grader's, to be graded again).
    """

    student: str
    assignment: str
    score: float = 0.0
    max: float = 0.0
    status: str = "graded"
    message: str = ""
    outcomes: list[dict] = field(default_factory=list)
    failures: list[dict] = field(default_factory=list)
    printed: str = ""
    answers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    key: str = ""


def grade(submission: Submission, assignments: Sequence[Assignment], sandbox: Sandbox) -> Grade:
    """Grade one submission. Only code of the instructor's runs in this process. Raises nothing on bad submissions."""
    start = time.perf_counter()
    try:
        work = read_work(submission.path)
        assignment = choose(work, assignments)
    except SubmissionError as error:
        only = assignments[0] if len(assignments) == 1 else None
        return Grade(submission.student, only.name if only else "", max=only.max_score if only else 0.0,
                     status="unreadable", message=str(error))
    judge: Judge = judge_of(str(assignment.path), assignment.digest)
    with WorkerSession(assignment, own_cells(work, assignment), sandbox) as session:
        outcomes = judge.outcomes(session)
        failures = session.failures
    blank = all(outcome.verdict == "not implemented" for outcome in outcomes)
    return Grade(submission.student, assignment.name, sum(outcome.earned for outcome in outcomes),
                 assignment.max_score, "blank" if blank else "graded", outcomes=[asdict(one) for one in outcomes],
                 failures=failures, printed=session.printed,
                 answers={question.id: answer_to(question, work) for question in assignment.questions},
                 seconds=round(time.perf_counter() - start, 1))


def _begin(secret: str) -> None:
    """In a process that grades: the seed, one thread, and a limit to what a submission can make it hold."""
    import torch

    os.environ[SEED] = secret
    torch.set_num_threads(1)
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows; a lower limit that holds already
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS, ADDRESS))


def safe_grade(submission: Submission, paths: Sequence[Path], sandbox: Sandbox) -> Grade:
    """``grade`` in a process of the pool; a fault of ours costs one submission, not the class."""
    try:
        return grade(submission, [_assignment(path) for path in paths], sandbox)
    except Exception as error:  # the class's run goes on; the row says what happened
        return Grade(submission.student, "", status="error", message=f"{type(error).__name__}: {error}"[:500])


@cache
def _assignment(path: Path) -> Assignment:
    """Read once a process."""
    return Assignment(path)


def grade_class(folder: str | Path, out: Path, assignments: Sequence[Assignment], *, sandbox: Sandbox, jobs: int = 2,
                secret: str = "", written: dict[tuple[str, str], tuple[float, float]] | None = None) -> list[Grade]:
    """Grade all submissions in ``folder`` and write ``out`` (CSV); the rest goes into the folder of that name.

    There, ``results`` holds a JSON file a submission: one that has not changed, nor its assignment, the seed or the
    release of zsar, is not graded again. ``feedback`` holds a page a submission; ``written.html`` and ``written.csv``
    are for the human who reads the answers. written: points from such a sheet, see ``read_points``. Of several
    notebooks that a student hands in for one assignment, the best counts.

    Raises CourseError where there is nothing to grade, OutputError where results cannot be written.
    """
    submissions, beside = find_submissions(folder), writable_folder(out.with_suffix(""))
    sandbox.check_unseen(*(assignment.path for assignment in assignments), Path(folder), beside)
    results = writable_folder(beside / "results")
    digests = {assignment.name: assignment.digest for assignment in assignments}
    keys = {one: _key(one, secret, sandbox) for one in submissions}
    files = {one: results / f"{_slug(one, Path(folder))}.json" for one in submissions}
    grades = {one: kept for one in submissions if (kept := _kept(files[one], keys[one], digests))}
    todo = [one for one in submissions if one not in grades]
    with tqdm(total=len(submissions), initial=len(grades), unit="submission", leave=False) as bar:
        for one, found in _in_processes(todo, [assignment.path for assignment in assignments], sandbox, jobs, secret):
            grades[one], found.key = found, _with_assignment(keys[one], found, digests)
            write_json(files[one], asdict(found))
            bar.update()
    ordered = [grades[one] for one in submissions]
    pages = writable_folder(beside / "feedback")
    titles = {assignment.name: assignment.title for assignment in assignments}
    for one, found in grades.items():
        page = feedback_page(found, titles.get(found.assignment, ""))
        write_atomically(pages / f"{files[one].stem}.html", page.encode())
    counted = _best(ordered)
    write_answers(counted, assignments, beside)
    write_atomically(out, _table(counted, written or {}).encode())
    return ordered


def _in_processes(todo: Sequence[Submission], paths: Sequence[Path], sandbox: Sandbox, jobs: int,
                  secret: str) -> Iterator[tuple[Submission, Grade]]:
    """The grades as they come. Should the system end a grading process, what was lost is tried again, each alone."""
    lost = []
    for one, found in _pooled(todo, paths, sandbox, jobs, secret):
        if found is None:
            lost.append(one)
        else:
            yield one, found
    for one in lost:
        (_, found), = _pooled([one], paths, sandbox, 1, secret)
        yield one, found or Grade(one.student, "", status="error", message="the system ended the grading process")


def _pooled(todo: Sequence[Submission], paths: Sequence[Path], sandbox: Sandbox, jobs: int,
            secret: str) -> Iterator[tuple[Submission, Grade | None]]:
    """The grades as they come; None for what was in hand, or still to come, when a process was ended."""
    with ProcessPoolExecutor(max(1, min(jobs, len(todo))), get_context("spawn"), _begin, (secret,)) as pool:
        waiting = {pool.submit(safe_grade, one, paths, sandbox): one for one in todo}
        try:
            for done in as_completed(waiting):
                try:
                    yield waiting[done], done.result()
                except BrokenProcessPool:
                    yield waiting[done], None
        except BaseException:  # Ctrl-C, a full disk
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _best(grades: Sequence[Grade]) -> list[Grade]:
    """One grade a student and assignment, in order: the best, where somebody handed in several notebooks."""
    best: dict[tuple[str, str], Grade] = {}
    for one in grades:
        key = (one.student, one.assignment)
        if key not in best or one.score > best[key].score:
            best[key] = one
    return [best[key] for key in sorted(best)]


def _table(grades: Sequence[Grade], written: dict[tuple[str, str], tuple[float, float]]) -> str:
    """The grades as CSV; ``written``: points and maximum of (student, assignment) to be added.

    Raises CourseError for points of somebody who is not among the grades.
    """
    if unknown := set(written) - {(plain(one.student), one.assignment) for one in grades}:
        raise CourseError(f"points for {' in '.join(min(unknown))}, who handed nothing in: is it this class's sheet?")
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for one in grades:
        points, most = written.get((plain(one.student), one.assignment), (0.0, 0.0))
        score, most = f"{one.score + points:g}", f"{one.max + most:g}"
        rows.writerow([plain(one.student), one.assignment, score, most, one.status])
    return text.getvalue()


def _slug(submission: Submission, folder: Path) -> str:
    """A file name for a submission, whatever its student is called."""
    readable = re.sub(r"[^\w.-]+", "_", f"{submission.student}-{submission.path.stem}").encode(errors="replace")
    place = os.fsencode(submission.path.relative_to(folder))
    return f"{readable[:80].decode(errors='ignore').lstrip('.')}-{hashlib.sha256(place).hexdigest()[:6]}"


def _key(submission: Submission, secret: str, sandbox: Sandbox) -> str:
    """Of all that a grade depends on but the assignment."""
    digest = hashlib.sha256(f"{__version__}\n{secret}\n{sandbox.weak}\n".encode())
    path = submission.path
    with contextlib.suppress(OSError):  # what cannot be read is found to be so when it is graded
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= LARGEST:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _with_assignment(key: str, grade: Grade, digests: dict[str, str]) -> str:
    """The key with what the assignment adds: its own digest, or all of them where a notebook belongs to none."""
    return f"{key}-{digests.get(grade.assignment) or ''.join(digests.values())}"


def _kept(file: Path, key: str, digests: dict[str, str]) -> Grade | None:
    """The grade of an earlier run, if it stands."""
    try:
        grade = Grade(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # none, cut off, or of another release
        return None
    return grade if grade.key == _with_assignment(key, grade, digests) and grade.status != "error" else None
