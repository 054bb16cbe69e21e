"""The workflow that grades on push: what its steps call is there."""

import re

import yaml
from wrong import ASSIGNMENTS, NAMES, ROOT

from zsar.__main__ import main
from zsar.course.assignment import Assignment


def test_the_workflow_grades_with_the_command_that_is_there(capsys):
    workflow = yaml.safe_load((ASSIGNMENTS / "grade-on-push.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["grade"]["steps"]
    commands = "\n".join(step.get("run", "") for step in steps)
    line, = re.findall(r"python -m zsar\.course (grade .*)", commands)
    line = line.replace("zsar/book/assignments", str(ASSIGNMENTS)).replace("grade work", "grade no-such-folder")
    assert main(["course", *line.split()]) == 2  # its words are known; what it would grade is not there
    assert "no folder no-such-folder" in capsys.readouterr().err
    assert "pull_request" not in workflow[True]  # YAML reads `on` as true; strangers' code must not meet secrets


def test_the_guide_tells_the_points():
    guide = (ROOT / "book" / "teaching.md").read_text(encoding="utf-8")
    for name in NAMES:
        about = Assignment(ASSIGNMENTS / name / "instructor.ipynb")
        row, = [line for line in guide.splitlines() if line.startswith("|") and f"assignments/{name}/" in line]
        assert f"{about.max_score:g} + {sum(one.points for one in about.questions):g} |" in row
