"""Numbers in the prose: each is what the stored results say, by its name, and none is typed in."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import measured  # noqa: E402

each_page = pytest.mark.parametrize("path", measured.pages(), ids=measured.name_of)


@each_page
def test_numbers_are_what_the_results_say(path):
    used, values = measured.names(path), measured.values(path)
    always = {"minutes", "memory", "t4 minutes", "t4 memory"}
    assert used - always == set(values) - always, "names without a value, or values that no sentence uses"
    for text in measured.texts(path):
        assert measured.renewed(text, values) == text, "make numbers"


@each_page
def test_no_number_is_typed_in(path):
    assert list(measured.typed(path)) == [], "name it, 72<!--measured name-->, or say in NOT_MEASURED what it is"


@each_page
def test_what_is_called_not_measured_is_there(path):
    prose = "\n".join(measured.texts(path))
    assert [phrase for phrase in getattr(measured.module_of(path), "NOT_MEASURED", {}) if phrase not in prose] == []


@pytest.mark.parametrize(("text", "value", "written"), [
    ("72", 71.6, "72"), ("7.10", 7.126, "7.13"), ("+3.4", 2, "+2.0"), ("1,200", 51200.4, "51,200"),
    ("12", 51200, "51,200"), ("Seven", 12.2, "Twelve"), ("no", 1, "one"), ("three", 31, "31"), ("-0.4", 0.5, "0.5"),
    ("\N{MINUS SIGN}4", -5, "\N{MINUS SIGN}5"), ("abc1234", "fff0000", "fff0000")])
def test_a_number_is_written_as_the_one_before(text, value, written):
    assert measured.in_style(text, value) == written


def test_a_number_that_moved_is_renewed_and_an_unknown_name_refused():
    page = "It keeps 70<!--measured kept--> % of four<!--measured n-->."
    now = "It keeps 68<!--measured kept--> % of five<!--measured n-->."
    assert measured.renewed(page, {"kept": 68.4, "n": 5}) == now
    with pytest.raises(KeyError):
        measured.renewed(page, {"kept": 1})


def test_typed_numbers_are_found_and_others_are_not(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("It won 3.5 points and 12 % in 95 % of 4<!--measured a--> %, `5 %`, $6 \\%$, ten times, 8 seconds."
                    "\n```python\n7 %\n```\n*Difficulty 1, 5 minutes.*")
    assert list(measured.typed(path)) == ["3.5 points", "12 %", "8 seconds"]


def test_marks_are_no_measured_numbers(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("**Question 2 (8 points).** It won (8 points).\n\n**Rubric** (8 points):\n- 2: all.")
    assert list(measured.typed(path)) == ["8 points"]


def test_what_a_page_printed_can_be_named():
    assert measured.printed("welcome", r"^robust +([\d.]+)") > 0
    with pytest.raises(LookupError):
        measured.printed("welcome", "no such words")
