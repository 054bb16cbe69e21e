"""The same instructor notebook, released and graded by nbgrader itself."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sums import RIGHT

from zsar.course import release

NBGRADER = shutil.which("nbgrader", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
pytestmark = pytest.mark.skipif(not NBGRADER, reason="nbgrader is not installed: pip install nbgrader")


def nbgrader(folder: Path, *words: str) -> None:
    done = subprocess.run([NBGRADER, *words, "--course", "zsar"], cwd=folder, capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]


def test_nbgrader_releases_and_grades_it(assignment, tmp_path):
    source = tmp_path / "source" / "sums"
    source.mkdir(parents=True)
    without_demos = json.loads(assignment.path.read_text())
    without_demos["cells"] = [cell for cell in without_demos["cells"] if not cell["metadata"].get("tags")]
    without_demos["metadata"]["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (source / "sums.ipynb").write_text(json.dumps(without_demos))
    nbgrader(tmp_path, "generate_assignment", "sums")
    released = (tmp_path / "release" / "sums" / "sums.ipynb").read_text()
    assert "raise NotImplementedError()" in released
    assert "also for other inputs" not in released
    stub = "    # YOUR CODE HERE\\n    raise NotImplementedError()"
    handed_in = tmp_path / "submitted" / "ada" / "sums" / "sums.ipynb"
    handed_in.parent.mkdir(parents=True)
    work = json.loads(released)
    for cell in work["cells"]:
        name = cell["metadata"].get("nbgrader", {}).get("grade_id")
        if name == "double":
            cell["source"] = "".join(cell["source"]).replace("\n".join(release.STUB), "").replace(
                "# YOUR CODE HERE\n    raise NotImplementedError()", RIGHT["double"])
    assert stub not in json.dumps(work["cells"][1])
    handed_in.write_text(json.dumps(work))
    nbgrader(tmp_path, "autograde", "sums")
    with sqlite3.connect(tmp_path / "gradebook.db") as book:
        points = dict(book.execute("select base_cell.name, grade.auto_score from grade "
                                   "join base_cell on base_cell.id = grade.cell_id"))
    assert {name: points[name] for name in ("double-public", "double-hidden", "apply", "apply-leak")} == {
        "double-public": 2, "double-hidden": 3, "apply": 0, "apply-leak": 0}
