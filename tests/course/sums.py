"""A very small assignment, and notebooks that somebody may hand in for it."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from zsar.course import release
from zsar.course.assignment import Assignment

GIVEN = """
import torch
from zsar.course import given, hidden_seed, remotely


class Model(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(float(factor)))

    def forward(self, x):
        return self.weight * x


@given
def model(factor):
    return Model(factor)


def gradient_left(function, net, x):
    function(net, x)
    return net.weight.grad is not None
"""
DOUBLE = """
def double(x):
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION
"""
APPLY = """
def apply(net, x):
    ### BEGIN SOLUTION
    with torch.no_grad():
        return net(x)
    ### END SOLUTION
"""
TESTS = {"double-public": (2, """
# double doubles
x = torch.arange(3.0)
assert torch.equal(double(x), 2 * x), "expected twice the input"
"""), "double-hidden": (3, """
# double doubles anything
assert torch.equal(double(torch.ones(2)), 2 * torch.ones(2))
### BEGIN HIDDEN TESTS
x = torch.randn(4, generator=torch.Generator().manual_seed(hidden_seed("double")))
assert torch.equal(double(x), 2 * x), "expected twice the input, also for other inputs"
### END HIDDEN TESTS
"""), "apply": (4, """
# apply calls the model
assert torch.equal(apply(model(3), torch.ones(2)), torch.full((2,), 3.0))
"""), "apply-leak": (1, """
# apply leaves no gradient
assert not remotely(gradient_left)(apply, model(2), torch.ones(2)), "a gradient was left in the model"
""")}
ANSWER = "### BEGIN SOLUTION\nBecause.\n\n**Rubric** (5 points): one for each letter but two.\n### END SOLUTION"


def _marks(name: str, **marks) -> dict:
    return {"nbgrader": {"grade_id": name, "schema_version": 3, "task": False, **marks}}


def make_assignment(folder: Path, called: str = "sums", **changes: str) -> Assignment:
    """The assignment in ``folder/called``; ``changes``: other sources of DOUBLE and APPLY."""
    solution = {"grade": False, "solution": True, "locked": False}
    cells = [new_markdown_cell("# Sums\n\nDouble things."), new_code_cell(GIVEN.strip()),
             new_code_cell(changes.get("double", DOUBLE).strip(), metadata=_marks("double", **solution)),
             new_code_cell("1 / 0", metadata={"tags": ["demo"]}),
             new_code_cell(changes.get("apply", APPLY).strip(), metadata=_marks("apply-solution", **solution)),
             *(new_code_cell(source.strip(), metadata=_marks(name, grade=True, solution=False, locked=True, points=n))
               for name, (n, source) in TESTS.items()),
             new_markdown_cell("A secret hint", metadata={"tags": ["instructor"]}),
             new_markdown_cell("**Question.** Why?"),
             new_markdown_cell(ANSWER, metadata=_marks("why", grade=True, solution=True, locked=False, points=5))]
    path = folder / called / "instructor.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(new_notebook(cells=cells), path)
    return Assignment(path)


def hand_in(assignment: Assignment, path: Path, *, double: str | None = None, apply: str | None = None,
            before: str = "", after: str = "", answer: str | None = None) -> Path:
    """The released notebook with bodies of functions filled in, and cells more at either end."""
    notebook = release.student_notebook(assignment, "")
    bodies = {"double": double, "apply-solution": apply}
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if bodies.get(name) is not None:
            cell.source = cell.source.replace("# YOUR CODE HERE\n    raise NotImplementedError()", bodies[name])
        if name == "why" and answer is not None:
            cell.source = answer
    notebook.cells = [*[new_code_cell(before)] * bool(before), *notebook.cells, *[new_code_cell(after)] * bool(after)]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


RIGHT = {"double": "return 2 * x", "apply": "return net(x)"}
