"""What stands around a page, before any page is built: addresses, minutes, terms."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tools/sphinx_ext")]

import book_furniture  # noqa: E402
import book_glossary  # noqa: E402
from build_book import chapters  # noqa: E402
from prose import WORDS_A_MINUTE, count_words  # noqa: E402

CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
REPOSITORY = CONFIG["repository"]["url"]
ASSIGNMENTS = sorted(ROOT.glob("book/assignments/*/student.ipynb"))


@pytest.mark.parametrize("path", chapters(), ids=lambda path: path.stem)
def test_a_chapter_ends_with_the_form_that_knows_its_page(path):
    last = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"][-1]
    address = book_furniture.report_address(REPOSITORY, path.stem)
    assert last.splitlines()[-1] == f"[Report an error on this page]({address}). Text: CC BY 4.0; code: MIT."


def test_the_form_has_the_fields_that_addresses_fill_in():
    name, = set(re.findall(r"template=([\w.-]+)", book_furniture.report_address(REPOSITORY, "x")))
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE" / name).read_text(encoding="utf-8"))
    address = book_furniture.footer(REPOSITORY, "welcome", {"version": "0.1.0", "commit": "none"})
    fields = set(re.findall(r"[?;](\w+)=", address)) - {"template"}
    assert fields == {"page", "version"}
    assert fields <= {field["id"] for field in form["body"]}


def test_footer_links_to_the_commit_and_says_when_there_is_none():
    made = book_furniture.footer("https://github.com/o/r", "welcome", {"version": "1.2", "commit": "abc1234+"})
    assert '<a href="https://github.com/o/r/tree/abc1234">abc1234 and uncommitted changes</a>' in made
    assert "page=welcome&amp;version=1.2%2C+abc1234%2B" in made
    without = book_furniture.footer("https://github.com/o/r", "welcome", {"version": "1.2", "commit": "none"})
    assert "outside a git checkout" in without
    assert "/tree/" not in without


def test_site_address_is_that_of_github_pages():
    assert book_furniture.site_address("https://github.com/someone/zsar") == "https://someone.github.io/zsar/"


def test_minutes_are_the_sum_of_what_exercises_state():
    assert book_furniture.exercise_minutes("Difficulty 1, 5 minutes. Difficulty 3, 20 minutes.") == 25
    stated = "Your time (an estimate) 30 minutes for part 1, 40 for part 2: about 3 hours. Run time 15 minutes"
    assert book_furniture.exercise_minutes(stated) == 70
    assert book_furniture.exercise_minutes("nothing") == 0
    assert book_furniture.minutes(1000, 25, 90) == ("Reading 5 min (1,000 words at 200 a minute) · exercises 25 min · "
                                                    "ran in 1.5 min for this page")
    assert book_furniture.minutes(10, 0, None) == "Reading 1 min (10 words at 200 a minute)"


@pytest.mark.parametrize("path", ASSIGNMENTS, ids=lambda path: path.parent.name)
def test_assignments_state_minutes_that_can_be_summed(path):
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells).replace("*", "")
    assert 120 <= book_furniture.exercise_minutes(text) <= 300


def test_words_are_those_of_prose_without_exercises():
    cells = ["# Three plain words\n\n```python\nimport torch\n```\n$a + b$", "## Exercises\n\nWrite it.", "## Summary"]
    assert count_words(cells) == 4
    assert WORDS_A_MINUTE == book_furniture.WORDS_A_MINUTE


@pytest.mark.parametrize(("text", "found"), [
    ("PGD finds it", "PGD"), ("many white-box attacks", "white-box attacks"), ("White-box attack", "White-box attack"),
    ("PGD-10 only", None), ("a pgd", None), ("UPGDS", None)])
def test_terms_are_found_as_words(text, found):
    matches = [re.search(book_glossary.pattern(term), text) for term in ("PGD", "white-box attack")]
    assert next((match[0] for match in matches if match), None) == found


def test_everyday_words_are_terms():
    body = (ROOT / "book/glossary.md").read_text(encoding="utf-8").split("```{glossary}")[1]
    terms = {line for line in body.splitlines() if line and not line.startswith((" ", "`"))}
    assert book_glossary.EVERYDAY - terms == set()
