"""An autograder for Gradescope: a zip with ``setup.sh``, ``run_autograder``, the package and one assignment."""

import io
import zipfile
from importlib.metadata import requires
from pathlib import Path

from zsar.course.assignment import Assignment
from zsar.course.grade import Grade
from zsar.outputs import writable_file, write_atomically
from zsar.paths import data_path

DATA = ("drawn", "datasets", "expected", "reported")
SETUP = """#!/usr/bin/env bash
# Runs once, when Gradescope builds the image. The hidden tests stay where only root reads them.
set -euo pipefail
apt-get update -qq
apt-get install -y -qq bubblewrap python3 python3-venv
apt-get install -y -qq python3.11 python3.11-venv || true  # where the image's own Python is older
PYTHON=$(command -v python3.11 || command -v python3)
"$PYTHON" -c 'import sys; sys.exit("this needs Python 3.11: choose a newer image" if sys.version_info < (3, 11) else 0)'
"$PYTHON" -m venv /opt/zsar-env
/opt/zsar-env/bin/pip install --quiet --requirement /autograder/source/requirements.txt
mkdir -p /opt/zsar && cp -r /autograder/source/zsar /opt/zsar/ && chmod -R a+rX /opt/zsar /opt/zsar-env
chmod -R go= /autograder/source
"""
RUN = """#!/usr/bin/env bash
# Runs for each submission. Gradescope's containers may offer no namespaces: then isolation is weak, see the guide.
set -uo pipefail
AUTOGRADER=${AUTOGRADER:-/autograder}
PYTHON=${ZSAR_PYTHON:-/opt/zsar-env/bin/python}
export PYTHONPATH=${ZSAR_PATH:-/opt/zsar} OMP_NUM_THREADS=1
export ZSAR_COURSE_SEED="$(cat "$AUTOGRADER/source/seed" 2>/dev/null)"
"$PYTHON" -m zsar.course gradescope-run "$AUTOGRADER/submission" --assignments "$AUTOGRADER/source/assignments" \\
    --results "$AUTOGRADER/results/results.json"
"""


def write_zip(assignment: Assignment, out: Path, secret: str) -> None:
    """Write the zip to ``out``. ``secret``: the seed of hidden inputs. Raises OutputError."""
    content = io.BytesIO()
    package = Path(__file__).resolve().parents[1]
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {"setup.sh": SETUP, "run_autograder": RUN}.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o755 << 16
            archive.writestr(entry, text)
        archive.writestr("requirements.txt", "\n".join(_requirements()) + "\n")
        archive.writestr("seed", secret)
        archive.write(assignment.path, f"assignments/{assignment.name}/instructor.ipynb")
        for path in _files(package):
            if path.relative_to(package).parts[0] != "_data":
                archive.write(path, f"zsar/{path.relative_to(package)}")
        for folder in DATA:
            for path in _files(data_path(folder)):
                archive.write(path, f"zsar/_data/{folder}/{path.relative_to(data_path(folder))}")
    write_atomically(writable_file(out), content.getvalue())


def _requirements() -> list[str]:
    """What the package and its grader need, as the installed package says."""
    from packaging.requirements import Requirement  # of matplotlib's requirements

    found = map(Requirement, requires("zsar") or [])
    return [f"{one.name}{one.specifier}" for one in found
            if one.marker is None or one.marker.evaluate({"extra": "course"})]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def results(grade: Grade) -> dict:
    """A grade as Gradescope's ``results.json``."""
    notes = [grade.message] if grade.message else []
    notes += [f"Code cell {one['cell']} did not run: {one['error']}" for one in grade.failures]
    tests = [{"name": one["title"], "score": one["earned"], "max_score": one["points"],
              "status": "passed" if one["verdict"] == "passed" else "failed",
              "output": "\n".join([one["verdict"], *filter(None, [one["message"]]), *one["trace"]]),
              "output_format": "text", "visibility": "visible"} for one in grade.outcomes]
    return {"score": grade.score, "output": "\n".join(notes), "output_format": "text", "visibility": "visible",
            "stdout_visibility": "hidden", "tests": tests}
