"""What student code sees from inside, and what happens where it cannot be shut in."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from sums import RIGHT, hand_in, make_assignment

from zsar.__main__ import main
from zsar.course import sandbox, syscalls
from zsar.course.grade import grade
from zsar.course.sandbox import Limits, Sandbox
from zsar.course.submissions import Submission
from zsar.errors import CourseError

LOOK = """
import os, json
place = {"files": sorted(os.listdir("/")), "user": os.getuid(), "environment": sorted(os.environ),
         "processes": [name for name in os.listdir("/proc") if name.isdigit()],
         "book": sum(1 for _, _, names in os.walk("/") for name in names if name.endswith("instructor.ipynb"))}
try:
    open("/written", "w")
    place["writes"] = True
except OSError:
    place["writes"] = False
"""
#: Calls that would leave memory behind, and what becomes of each.
TRIES = """
import ctypes, json, os
said = {}
for code in ("os.memfd_create('x')", "ctypes.CDLL(None, use_errno=True).shmget(0, 4096, 0o1600)",
             "ctypes.CDLL(None, use_errno=True).unshare(0x10000000)", "open('/dev/x', 'w')"):
    try:
        done = eval(code)
        if done == -1:
            raise OSError(ctypes.get_errno())
        said[code] = "done"
    except Exception as error:
        said[code] = type(error).__name__
"""
needs_bwrap = pytest.mark.skipif(not shutil.which("bwrap"), reason="no bubblewrap here")


@pytest.fixture(scope="module")
def inside(tmp_path_factory):
    """What a submission sees, as ``double`` returns it: the first words of an error message."""
    folder = tmp_path_factory.mktemp("inside")
    assignment = make_assignment(folder / "assignments")
    path = hand_in(assignment, folder / "alice.ipynb", before=LOOK, double="raise ValueError(json.dumps(place))")
    found = grade(Submission("alice", path), [assignment], Sandbox())
    return json.loads(found.outcomes[0]["message"].removeprefix("ValueError: "))


@needs_bwrap
def test_the_file_system_holds_python_and_nothing_of_the_instructors(inside):
    assert not inside["writes"]
    assert inside["book"] == 0
    assert "home" not in inside["files"]


@needs_bwrap
def test_it_is_nobody_with_few_processes_and_a_bare_environment(inside):
    assert inside["user"] != 0
    assert len(inside["processes"]) <= 3
    assert not [name for name in inside["environment"] if "SEED" in name or "SECRET" in name]


def test_without_bubblewrap_grading_is_refused_in_one_line(assignment, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    hand_in(assignment, tmp_path / "in" / "alice.ipynb", **RIGHT)
    command = ["course", "grade", str(tmp_path / "in"), "--assignments", str(tmp_path / "assignments"), "--out",
               str(tmp_path / "grades.csv")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--weak-isolation" in error
    assert not (tmp_path / "grades.csv").exists()


def test_a_bubblewrap_that_is_not_allowed_is_refused(monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: "/bin/false")
    with pytest.raises(CourseError, match="cannot be isolated"):
        Sandbox()


def test_weak_isolation_grades_and_limits(assignment, tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "is_root", lambda: False)  # root may be refused, see below
    path = hand_in(assignment, tmp_path / "alice.ipynb", double="import os\n    os._exit(0)", apply=RIGHT["apply"])
    found = grade(Submission("alice", path), [assignment], Sandbox(weak=True))
    assert found.score == 5
    assert "exit status 0" in found.outcomes[0]["message"]


def test_weak_isolation_never_runs_student_code_as_root(monkeypatch):
    monkeypatch.setattr(sandbox, "is_root", lambda: True)
    monkeypatch.setattr(sandbox, "_world_readable", lambda path: False)
    with pytest.raises(CourseError, match="as root"):
        Sandbox(weak=True)


def test_what_must_stay_hidden_may_not_lie_where_python_does(tmp_path):
    with pytest.raises(CourseError, match="could read"):
        Sandbox.check_unseen(SimpleNamespace(weak=False), Path(sys.prefix) / "book" / "instructor.ipynb")
    Sandbox.check_unseen(SimpleNamespace(weak=False), tmp_path)


@needs_bwrap
@pytest.mark.skipif(not sandbox.is_root() or not shutil.which("setpriv"), reason="needs root to become another user")
def test_an_ordinary_user_gets_a_user_namespace(monkeypatch):
    monkeypatch.setattr(sandbox, "is_root", lambda: False)
    monkeypatch.setattr(sandbox, "_seen", lambda: [])  # the Python of these tests may be root's alone
    monkeypatch.setattr(sandbox, "_fonts", lambda: [])
    words = Sandbox.__dict__["_bubble"].func(SimpleNamespace(limits=Limits()))
    assert "--unshare-user" in words
    become = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"]
    done = subprocess.run([*become, *words, "/usr/bin/id", "-u"], capture_output=True, text=True, cwd="/")
    assert done.stdout == f"{sandbox.NOBODY}\n", done.stderr


@needs_bwrap
@pytest.mark.skipif(syscalls.program() is None, reason="no filter is known for this machine")
def test_no_memory_is_to_be_had_that_belongs_to_no_process(assignment, tmp_path):
    path = hand_in(assignment, tmp_path / "eve.ipynb", before=TRIES, double="raise ValueError(json.dumps(said))",
                   apply=RIGHT["apply"])
    found = grade(Submission("eve", path), [assignment], Sandbox())
    assert found.score == 5
    said = json.loads(found.outcomes[0]["message"].removeprefix("ValueError: "))
    assert len(said) == 4
    assert set(said.values()) <= {"PermissionError", "OSError"}, said
