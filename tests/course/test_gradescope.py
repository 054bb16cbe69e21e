"""The autograder's zip, unpacked and run as Gradescope lays it out."""

import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from sums import RIGHT, hand_in

from zsar.__main__ import main


@pytest.fixture
def autograder(assignment, tmp_path):
    """``/autograder`` as it is when a submission arrives; ``setup.sh`` has put the package where anyone reads it."""
    (tmp_path / "seed").write_text("secret\n")
    made = tmp_path / "sums.zip"
    assert main(["course", "gradescope", "sums", "--assignments", str(assignment.path.parents[1]), "--out", str(made),
                 "--seed-file", str(tmp_path / "seed")]) == 0
    with zipfile.ZipFile(made) as archive:
        archive.extractall(tmp_path / "autograder" / "source")
    (tmp_path / "autograder" / "submission").mkdir()
    return tmp_path / "autograder"


def run(autograder) -> dict:
    """What ``run_autograder`` writes, with this Python and the zip's own package."""
    done = subprocess.run(["bash", autograder / "source" / "run_autograder"], capture_output=True, text=True,
                          cwd=autograder, env=os.environ | {
                              "AUTOGRADER": str(autograder), "ZSAR_PYTHON": sys.executable,
                              "ZSAR_PATH": str(autograder / "source")})
    assert done.returncode == 0, done.stderr
    return json.loads((autograder / "results" / "results.json").read_text())


def test_the_zip_holds_what_gradescope_expects(autograder):
    source = autograder / "source"
    assert {"setup.sh", "run_autograder", "requirements.txt", "seed"} <= {path.name for path in source.iterdir()}
    assert "torch>=" in (source / "requirements.txt").read_text()
    assert "psutil>=" in (source / "requirements.txt").read_text()
    assert (source / "seed").read_text() == "secret"
    for script in ("setup.sh", "run_autograder"):
        assert subprocess.run(["bash", "-n", source / script]).returncode == 0


@pytest.mark.skipif(not shutil.which("bwrap"), reason="no bubblewrap here: weak isolation is tried elsewhere")
def test_a_submission_is_graded(autograder, assignment):
    hand_in(assignment, autograder / "submission" / "work.ipynb", double=RIGHT["double"])
    found = run(autograder)
    assert found["score"] == 5
    assert [test["status"] for test in found["tests"]] == ["passed", "passed", "failed", "failed"]
    assert sum(test["max_score"] for test in found["tests"]) == 10


def test_no_notebook_is_no_crash(autograder):
    (autograder / "submission" / "readme.txt").write_text("sorry")
    found = run(autograder)
    assert found["score"] == 0
    assert "no notebook" in found["output"]
