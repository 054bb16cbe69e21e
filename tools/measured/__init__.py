"""The measured numbers in the book's prose: each carries a name, and its digits are written from the stored results.

A page says ``FARE keeps 72<!--measured fare clean--> %``, of which a reader sees the number alone. The module of this
package that is named after the page says what the name stands for: ``numbers()`` returns {name: value}, computed from
the stored results, and ``NOT_MEASURED`` lists what looks like a measured number there and is none: {phrase: what it
is}. ``make numbers`` writes the digits anew; a test holds the pages to them.
"""

import importlib.util
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import nbformat
from prose import prose

from zsar.bench import estimates
from zsar.paths import data_path

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"([+\-\u2212]?[\w.,]*\w)<!--measured (.+?)-->")
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
         "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty")
#: What a measured quantity looks like: a number (an interval counts as one) before one of these. Marks are none, those
#: that a question is worth and that its rubric gives.
QUANTITY = re.compile(r"(?<!Question \d \()(?<!Rubric \()(?<!Rubric\*\* \()(?<![\w.,/{$^-])(\d[\d,]*(?:\.\d+)?)\s*"
                      r"(%|points?\b|times\b|seconds?\b|minutes?\b|hours?\b|[KMG]B\b)")
#: What has the form of a quantity and is none: the confidence of intervals, the heads of exercises, no downloads.
FORMS = re.compile(r"95 %|Difficulty \d[^.]*\.|Downloads 0 MB")


def pages() -> list[Path]:
    """All pages of the book with prose of their own; a student's notebook has that of the instructor's."""
    found = [path for pattern in ("*.ipynb", "*.md", "assignments/*/instructor.ipynb")
             for path in (ROOT / "book").glob(pattern)]
    return sorted(found)


def name_of(path: Path) -> str:
    """The page's name, ``loss-variants``; of an assignment its folder's."""
    return path.parent.name if path.stem == "instructor" else path.stem


def path_of(page: str) -> Path:
    """The file of the page of that name."""
    return next(path for path in pages() if name_of(path) == page)


def texts(path: Path) -> list[str]:
    """The prose of a page: the whole of it, or cell by cell."""
    if path.suffix == ".md":
        return [path.read_text(encoding="utf-8")]
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]


def module_of(path: Path) -> object | None:
    """What this package says of a page; None if it says nothing."""
    name = f"measured.{name_of(path).replace('-', '_')}"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def in_style(text: str, value: float | str) -> str:
    """``value`` as ``text`` is written: a word (up to twenty), or with as many decimals, commas and a sign."""
    if isinstance(value, str):
        return value
    if text.lower() in WORDS:
        word = WORDS[round(value)] if 0 <= round(value) < len(WORDS) else str(round(value))
        return word.capitalize() if text[0].isupper() else word
    sign, comma = "+" if text.startswith("+") else "", "," if "," in text or abs(value) >= 1e4 else ""
    return f"{value:{sign}{comma}.{len(text.partition('.')[2])}f}".replace("-", "\N{MINUS SIGN}" if "\N{MINUS SIGN}"
                                                                            in text else "-")


def renewed(text: str, values: dict[str, float | str]) -> str:
    """The prose with every measured number as it is now. Raises KeyError for a name that stands for nothing."""
    return NAMED.sub(lambda found: f"{in_style(found[1], values[found[2]])}<!--measured {found[2]}-->", text)


def names(path: Path) -> set[str]:
    """The names that a page's prose uses."""
    return {found[2] for text in texts(path) for found in NAMED.finditer(text)}


def typed(path: Path) -> Iterator[str]:
    """Quantities in a page's prose that carry no name and are not among its ``NOT_MEASURED``."""
    known = getattr(module_of(path), "NOT_MEASURED", {})
    for text in texts(path):
        plain = FORMS.sub(" ", prose(NAMED.sub(" ", text)))
        for phrase in known:
            plain = plain.replace(phrase, " ")
        yield from (found[0] for found in QUANTITY.finditer(plain))


@cache
def outputs(page: str) -> str:
    """The text that the page's cells printed or tabulated, as stored in its notebook."""
    notebook = nbformat.read(path_of(page), as_version=4)
    found = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in found)


def printed(page: str, pattern: str, group: int = 1) -> float:
    """The number in ``group`` of the first match of a regular expression in what the page printed.

    Raises LookupError where nothing matches.
    """
    found = re.search(pattern, outputs(page), re.MULTILINE)
    if not found:
        raise LookupError(f"{page}: nothing that it printed matches {pattern!r}")
    return float(found[group].replace(",", ""))


def values(path: Path) -> dict[str, float | str]:
    """What each name on a page stands for; ``minutes`` and ``memory`` (GB) are those of the page's stored run.

    Where a page follows the profile, ``t4 minutes`` and ``t4 memory`` are what `zsar.bench.estimates` says of it.
    """
    module = module_of(path)
    found = dict(module.numbers()) if hasattr(module, "numbers") else {}
    run = nbformat.read(path, as_version=4).metadata.get("zsar", {}) if path.suffix == ".ipynb" else {}
    if "seconds" in run:
        found |= {"minutes": run["seconds"] / 60, "memory": run["peak_mb"] / 1000}
    counted = json.loads(data_path("results", "chapter-passes.json").read_text(encoding="utf-8"))["chapters"]
    if counted.get(name_of(path), {}).get("follows_profile"):
        found |= estimates.of_chapter(counted[name_of(path)])
    return found


def write(path: Path) -> bool:
    """Renews the numbers of a page in place; whether any changed."""
    known = values(path)
    if path.suffix == ".md":
        before = path.read_text(encoding="utf-8")
        path.write_text(renewed(before, known), encoding="utf-8")
        return before != path.read_text(encoding="utf-8")
    notebook, changed = nbformat.read(path, as_version=4), False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = renewed(cell.source, known)
            changed, cell.source = changed or text != cell.source, text
    if changed:
        nbformat.write(notebook, path)
    return changed
