"""Wrong solutions: edits of the right ones in ``mutants/NAME.toml``, with the tests that each must lose."""

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path

from zsar.course.assignment import Assignment, Test

ROOT = Path(__file__).resolve().parents[2]
ASSIGNMENTS = ROOT / "book" / "assignments"
NAMES = sorted(path.parent.name for path in ASSIGNMENTS.glob("*/instructor.ipynb"))


@dataclass(frozen=True)
class Mutant:
    """A wrong solution: ``edits`` of text (old, new), each found exactly once; ``loses`` the ids of tests."""

    assignment: str
    name: str
    edits: tuple[tuple[str, str], ...]
    loses: frozenset[str]

    def cells(self, assignment: Assignment) -> list[tuple[int, str]]:
        """The solution cells with the edits made."""
        sources = assignment.sources("solution")
        for old, new in self.edits:
            assert sum(source.count(old) for source in sources) == 1, f"{self.name}: {old!r} is not there exactly once"
            sources = [source.replace(old, new) for source in sources]
        return list(enumerate(sources))


def concerned(assignment: Assignment, mutant: Mutant) -> list[Test]:
    """The tests that can tell the mutant from the solution: those that call what it changes, if through others."""
    right, wrong = (map(ast.parse, cells) for cells in (assignment.sources("solution"),
                                                        [source for _, source in mutant.cells(assignment)]))
    calls, changed = {}, set()
    for before, after in zip(right, wrong, strict=True):
        for node in [*before.body, *after.body]:
            calls.setdefault(_name(node), set()).update(_names(node))
        if ast.dump(before) != ast.dump(after):
            changed |= set(map(_name, [*before.body, *after.body]))
    while more := {name for name in calls if calls[name] & changed} - changed:
        changed |= more
    return [test for test in assignment.tests if _names(ast.parse(test.source)) & changed]


def _name(node: ast.stmt) -> str:
    return getattr(node, "name", None) or ast.unparse(getattr(node, "targets", [node])[0])


def _names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def mutants(name: str) -> list[Mutant]:
    """The wrong solutions of an assignment."""
    table = tomllib.loads((Path(__file__).parent / "mutants" / f"{name}.toml").read_text(encoding="utf-8"))
    return [Mutant(name, one["name"], tuple((edit["old"], edit["new"]) for edit in one["edits"]),
                   frozenset(one["loses"])) for one in table["mutant"]]
