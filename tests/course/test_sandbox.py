"""What student code sees from inside, and what happens where it cannot be shut in."""

import shutil
import subprocess

import pytest
from sums import RIGHT, hand_in, make_assignment

from zsar.__main__ import main
from zsar.course import sandbox
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
needs_bwrap = pytest.mark.skipif(not shutil.which("bwrap"), reason="no bubblewrap here")


@pytest.fixture(scope="module")
def inside(tmp_path_factory):
    """What a submission sees, as ``double`` returns it: the first words of an error message."""
    folder = tmp_path_factory.mktemp("inside")
    assignment = make_assignment(folder / "assignments")
    path = hand_in(assignment, folder / "alice.ipynb", before=LOOK, double="raise ValueError(json.dumps(place))")
    found = grade(Submission("alice", path), [assignment], Sandbox())
    import json

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


def test_weak_isolation_grades_and_limits(assignment, tmp_path):
    path = hand_in(assignment, tmp_path / "alice.ipynb", double="import os\n    os._exit(0)", apply=RIGHT["apply"])
    found = grade(Submission("alice", path), [assignment], Sandbox(weak=True))
    assert found.score == 5
    assert "exit status 0" in found.outcomes[0]["message"]


@needs_bwrap
@pytest.mark.skipif(not sandbox.is_root() or not shutil.which("setpriv"), reason="needs root to become another user")
def test_an_ordinary_user_gets_a_user_namespace():
    words = Sandbox(limits=Limits())._bubble
    assert "CAP_SETUID" in words
    done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bwrap", "--unshare-user",
                           "--uid", "65534", "--gid", "65534", "--unshare-pid", "--unshare-net", "--ro-bind", "/usr",
                           "/usr", "--ro-bind", "/lib", "/lib", "--ro-bind-try", "/lib64", "/lib64", "/usr/bin/id"],
                          capture_output=True, text=True, cwd="/")
    assert "uid=65534" in done.stdout, done.stderr
