"""A class: who handed in what, grades, pages, answers; what is graded is not graded again."""

import csv
import json
import shutil

import pytest
from sums import RIGHT, hand_in, make_assignment

from zsar.__main__ import main
from zsar.course import grade as grading
from zsar.course.grade import Grade, grade_class, plain
from zsar.course.sandbox import Sandbox
from zsar.course.submissions import find_submissions
from zsar.course.written import read_points
from zsar.errors import CourseError

pytestmark = pytest.mark.skipif(not shutil.which("bwrap"), reason="no bubblewrap here: student code cannot be isolated")


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """A class of two assignments, graded by the command; its folder."""
    folder = tmp_path_factory.mktemp("class")
    sums = make_assignment(folder / "assignments")
    other = make_assignment(folder / "assignments", "other")
    hand_in(sums, folder / "in" / "ada.ipynb", **RIGHT, answer="Because <b>it</b> is so.")
    hand_in(sums, folder / "in" / "bob" / "sums.ipynb", double=RIGHT["double"])
    hand_in(other, folder / "in" / "bob" / "later" / "other.ipynb", **RIGHT)
    (folder / "in" / "=cmd()").mkdir()
    assert main(command(folder)) == 0
    return folder


def command(folder, *more: str) -> list[str]:
    return ["course", "grade", str(folder / "in"), "--assignments", str(folder / "assignments"), "--out",
            str(folder / "grades.csv"), "--jobs", "2", *more]


def rows(folder) -> list[list[str]]:
    return list(csv.reader((folder / "grades.csv").read_text().splitlines()))


def test_grades_are_a_table(graded):
    assert rows(graded) == [["student", "assignment", "score", "max", "status"],
                            ["'=cmd()", "", "0", "0", "unreadable"], ["ada", "sums", "10", "10", "graded"],
                            ["bob", "other", "10", "10", "graded"], ["bob", "sums", "5", "10", "graded"]]


def test_feedback_says_what_was_tested(graded):
    page, = [path.read_text() for path in (graded / "grades" / "feedback").glob("bob-sums-*.html")]
    assert "5 of 10 points" in page
    assert "apply calls the model" in page
    assert "not implemented" in page


def test_answers_are_laid_out_with_their_rubric_and_escaped(graded):
    page = (graded / "grades" / "written.html").read_text()
    assert "one for each letter but two" in page
    assert "Because &lt;b&gt;it&lt;/b&gt; is so." in page
    sheet = list(csv.DictReader((graded / "grades" / "written.csv").read_text().splitlines()))
    points = {row["student"]: row["points"] for row in sheet if row["assignment"] == "sums"}
    assert points == {"ada": "", "bob": "0"}


def test_what_is_graded_is_kept_until_something_changes(graded, monkeypatch, capsys):
    graded_now = []
    monkeypatch.setattr(grading, "_in_processes", lambda todo, *more: graded_now.extend(todo) or [])
    monkeypatch.setattr(grading, "_table", lambda grades, written: "")
    before = (graded / "grades.csv").read_bytes()
    assert main(command(graded)) == 0
    assert not graded_now
    make_assignment(graded / "assignments", "new")  # which nobody has handed in: only what belongs to none may change
    with pytest.raises(KeyError):
        main(command(graded))
    assert [one.student for one in graded_now] == ["=cmd()"]
    shutil.rmtree(graded / "assignments" / "new")
    graded_now.clear()
    with pytest.raises(KeyError):  # everything is to be graded again, and nothing was
        main(command(graded, "--seed-file", str(_seed(graded))))
    assert len(graded_now) == 4
    (graded / "grades.csv").write_bytes(before)


def _seed(folder):
    (folder / "seed").write_text("secret\n")
    return folder / "seed"


def test_filled_points_are_added(graded, capsys):
    sheet = graded / "grades" / "written.csv"
    filled = sheet.read_text().replace("ada,sums,why,,5", "ada,sums,why,4,5")
    sheet.write_text(filled)
    assert main(command(graded, "--written", str(sheet))) == 0
    assert ["ada", "sums", "14", "15", "graded"] in rows(graded)
    assert sheet.read_text() == filled  # not overwritten
    assert main(command(graded)) == 0


@pytest.mark.parametrize("row", ["ada,sums,why,9,5", "ada,sums,why,many,5", "ada,sums,why,,5", "ada"])
def test_a_sheet_with_a_bad_row_is_refused(tmp_path, row):
    (tmp_path / "sheet.csv").write_text(f"student,assignment,question,points,max\n{row}\n")
    with pytest.raises(CourseError, match="line 2"):
        read_points(tmp_path / "sheet.csv")


@pytest.mark.parametrize(("words", "says"), [(["--only", "sumz"], "did you mean sums|expected one of"),
                                             (["--jobs", "0"], "--jobs is 0"),
                                             (["--seed-file", "no-such-file"], "no-such-file"),
                                             (["--written", "no-such-sheet"], "no-such-sheet")])
def test_bad_words_are_one_line(graded, capsys, words, says):
    import re

    assert main(command(graded, *words)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(says, error)


def test_a_fault_of_the_grader_costs_one_row_and_is_tried_again(tmp_path):
    assignment = make_assignment(tmp_path / "assignments")
    path = hand_in(assignment, tmp_path / "in" / "ada.ipynb", **RIGHT)
    broken = make_assignment(tmp_path / "broken")
    broken.path.write_text("{}")  # what the processes find when they read it
    found, = grade_class(tmp_path / "in", tmp_path / "grades.csv", [broken], sandbox=Sandbox(), jobs=1)
    assert (found.status, found.score) == ("error", 0)
    kept = json.loads(next((tmp_path / "grades" / "results").glob("ada-*.json")).read_text())
    assert grading._kept(tmp_path / "grades" / "results" / "no.json", kept["key"], {}) is None
    assert path.exists()
    found, = grade_class(tmp_path / "in", tmp_path / "grades.csv", [assignment], sandbox=Sandbox(), jobs=1)
    assert (found.status, found.score) == ("graded", 10)


def test_a_link_is_not_followed(tmp_path):
    assignment = make_assignment(tmp_path / "assignments")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "eve.ipynb").symlink_to(assignment.path)
    found, = grade_class(tmp_path / "in", tmp_path / "grades.csv", [assignment], sandbox=Sandbox(), jobs=1)
    assert (found.status, found.score) == ("unreadable", 0)
    assert "link" in found.message


def test_nothing_to_grade_is_said(tmp_path):
    with pytest.raises(CourseError, match="no folder"):
        find_submissions(tmp_path / "none")
    with pytest.raises(CourseError, match="nothing to grade"):
        find_submissions(tmp_path)


def test_no_name_is_a_formula():
    assert [plain(name) for name in ("ada", "=1+1", "@x", "-x")] == ["ada", "'=1+1", "'@x", "'-x"]


def test_a_grade_of_another_release_is_graded_again(tmp_path):
    (tmp_path / "old.json").write_text(json.dumps({"student": "ada", "assignment": "sums", "colour": "blue"}))
    assert grading._kept(tmp_path / "old.json", "", {}) is None
    assert Grade("ada", "sums").status == "graded"
