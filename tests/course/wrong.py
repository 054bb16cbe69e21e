"""Wrong solutions: edits of the right ones in ``mutants/NAME.toml``, with the tests that each must lose."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from zsar.course.assignment import Assignment

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


def mutants(name: str) -> list[Mutant]:
    """The wrong solutions of an assignment."""
    table = tomllib.loads((Path(__file__).parent / "mutants" / f"{name}.toml").read_text(encoding="utf-8"))
    return [Mutant(name, one["name"], tuple((edit["old"], edit["new"]) for edit in one["edits"]),
                   frozenset(one["loses"])) for one in table["mutant"]]
