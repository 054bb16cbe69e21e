"""``python -m zsar.course``: release, grade, gradescope. Each command is a function of its arguments."""

import argparse
import os
from collections import Counter
from pathlib import Path

import torch

from zsar.course import gradescope, release
from zsar.course.assignment import find_assignments
from zsar.course.given import SEED
from zsar.course.grade import Grade, grade_class, safe_grade
from zsar.course.sandbox import NOT_GUARANTEED, Sandbox
from zsar.course.submissions import find_submissions
from zsar.course.written import read_points
from zsar.errors import ChecksFailedError, CourseError
from zsar.outputs import writable_file, write_json

REPOSITORY = "https://github.com/YOUR_NAME/zsar"  # a test holds it to _config.yml


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m zsar.course``."""
    tasks = parser.add_subparsers(dest="task", required=True, metavar="release|grade|gradescope|gradescope-run")

    def task(name: str, work, summary: str) -> argparse.ArgumentParser:
        command = tasks.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        command.add_argument("--assignments", type=Path, default=Path("book/assignments"), metavar="DIR",
                             help="the folder of the assignments' folders (default book/assignments)")
        command.set_defaults(work=work)
        return command

    command = task("release", _release, "write the students' notebooks, after checking solutions and blanks")
    command.add_argument("names", nargs="*", metavar="NAME", help="assignments; by default all")
    command.add_argument("--check", action="store_true", help="write nothing; exit status 1 where one is stale")
    command.add_argument("--repository", default=REPOSITORY, help="the address that the Colab links lead to")

    command = task("grade", _grade_class, "grade a class")
    command.add_argument("submissions", type=Path, help="a folder: a notebook, or a folder of notebooks, a student")
    command.add_argument("--out", type=Path, default=Path("grades.csv"), help="the grades (default grades.csv); pages "
                         "and the rest go into the folder of that name")
    command.add_argument("--only", action="append", metavar="NAME", help="take notebooks of this assignment only")
    command.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="submissions at a time")
    command.add_argument("--written", type=Path, metavar="CSV", help="a filled written.csv, whose points are added")
    _add_shared(command)

    command = task("gradescope", _gradescope, "write an autograder for Gradescope")
    command.add_argument("name", metavar="NAME", help="the assignment")
    command.add_argument("--out", type=Path, required=True, metavar="ZIP")
    command.add_argument("--seed-file", type=Path, metavar="FILE", help="a file with the seed of hidden inputs")

    command = task("gradescope-run", _gradescope_run, "grade one submission as Gradescope lays it out")
    command.add_argument("submission", type=Path)
    command.add_argument("--results", type=Path, required=True)


def _add_shared(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seed-file", type=Path, metavar="FILE",
                         help=f"a file outside the repository with the seed of hidden inputs (default ${SEED})")
    command.add_argument("--weak-isolation", action="store_true", help=f"for want of bubblewrap: {NOT_GUARANTEED}")


def run(args: argparse.Namespace) -> str:
    """Do what is asked; the text to print. Raises ZsarError, ChecksFailedError."""
    torch.set_num_threads(1)  # tests are many small steps, and grading fills the processor with processes
    return args.work(args)


def _secret(args: argparse.Namespace) -> str:
    """The seed of hidden inputs, empty if none is given. Raises CourseError."""
    if args.seed_file is None:
        return os.environ.get(SEED, "")
    try:
        secret = args.seed_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CourseError(f"cannot read the seed in {args.seed_file} ({error}): expected a file of one line") from error
    if not secret:
        raise CourseError(f"{args.seed_file} is empty: expected one line, such as 20 random letters")
    return secret


def _release(args: argparse.Namespace) -> str:
    lines, stale = [], []
    for assignment in find_assignments(args.assignments, args.names):
        path = assignment.path.with_name("student.ipynb")
        if not args.check:
            release.write(assignment, args.repository)
            lines.append(f"{path}: {assignment.max_score:g} points in {len(assignment.tests)} tests, "
                         f"{sum(question.points for question in assignment.questions):g} in written answers")
        elif not path.exists() or path.read_text(encoding="utf-8") != release.text(assignment, args.repository):
            stale.append(f"{path} is not what the instructor's notebook releases: python -m zsar.course release")
    if stale:
        raise ChecksFailedError("\n".join(stale))
    return "\n".join(lines) or "all student notebooks are up to date"


def _grade_class(args: argparse.Namespace) -> str:
    assignments, secret = find_assignments(args.assignments, args.only or ()), _secret(args)
    out = writable_file(args.out)
    if args.jobs < 1:
        raise CourseError(f"--jobs is {args.jobs}: expected at least 1")
    written = read_points(args.written) if args.written else None
    grades = grade_class(args.submissions, out, assignments, sandbox=Sandbox(weak=args.weak_isolation), jobs=args.jobs,
                         secret=secret, written=written)
    return _summary(grades, out, args.weak_isolation, secret, written is not None)


def _summary(grades: list[Grade], out: Path, weak: bool, secret: str, written: bool) -> str:
    counts = Counter(one.status for one in grades)
    lines = [f"{len(grades)} submissions: " + ", ".join(f"{n} {status}" for status, n in counts.most_common()),
             f"grades in {out}, feedback and written answers in {out.with_suffix('')}"]
    lines += [f"{one.student!r}: {one.status}: {one.message!r}" for one in grades if one.message]
    sheet = out.with_suffix("") / "written.csv"
    if not written and any(row.split(",")[-2] not in ("", "0") for row in sheet.read_text("utf-8").splitlines()[1:]):
        lines.append(f"note: {sheet} holds points; --written {sheet} adds them")
    if weak:
        lines.append(f"note: {NOT_GUARANTEED}")
    if not secret:
        lines.append(f"note: hidden inputs are those of the public repository; --seed-file or ${SEED} makes them yours")
    return "\n".join(lines)


def _gradescope(args: argparse.Namespace) -> str:
    assignment, = find_assignments(args.assignments, [args.name])
    secret = _secret(args)
    gradescope.write_zip(assignment, args.out, secret)
    return f"{args.out}: upload it as the autograder of {assignment.title!r}" + (
        "" if secret else f"; hidden inputs are those of the public repository, give --seed-file or set ${SEED}")


def _gradescope_run(args: argparse.Namespace) -> str:
    """Whatever happens, there is a ``results.json``: Gradescope shows a student nothing else."""
    paths = [assignment.path for assignment in find_assignments(args.assignments)]
    try:
        sandbox = Sandbox()
    except CourseError:  # a container without namespaces: the guide says what is then not guaranteed
        sandbox = Sandbox(weak=True)
    try:
        notebooks = [one for one in find_submissions(args.submission) if one.path.suffix == ".ipynb"]
    except CourseError:
        notebooks = []
    if notebooks:
        found = safe_grade(notebooks[0], paths, sandbox)
    else:
        found = Grade("", "", status="unreadable", message="no notebook (.ipynb) was handed in")
    write_json(writable_file(args.results), gradescope.results(found))
    return f"{found.score:g} of {found.max:g} points"
