"""What of a page is English: its text without code, formulae, roles and addresses."""

import re
from collections.abc import Iterable
from itertools import zip_longest

from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

PARSER = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, double_inline=True)
WORDS_A_MINUTE = 200  # prose with equations
#: Directives that hold no prose.
NO_PROSE = ("math", "eval-rst", "status-table", "bibliography", "toctree")
#: What stands at the head of a directive and is no prose: ``:label: eq-pgd``, or a block between dashes.
OPTIONS = re.compile(r"^:\w+:[^\n]*$|^---\n.*?^---$", re.MULTILINE | re.DOTALL)
#: ``{term}`eps```, of which the brackets come out of the parser as text.
ROLE = re.compile(r"\{[\w:-]+\}$")


def prose(text: str) -> str:
    """The text of a page that somebody reads aloud, a block a line. Directives are read too, roles are left out."""
    lines = []
    for token in PARSER.parse(text):
        if token.type == "inline":
            lines.append(inline(token.children))
        elif token.type in ("fence", "colon_fence") and token.info.startswith("{"):
            name, _, title = token.info[1:].partition("}")
            if name not in NO_PROSE:
                lines += [prose(title), prose(OPTIONS.sub("", token.content))]
    return "\n".join(lines)


def count_words(cells: Iterable[str]) -> int:
    """Words to read in the Markdown cells of a page: no code, no formulae, and no exercises, which are work."""
    whole = re.sub(r"(?ms)^## Exercises$.*?(?=^## |\Z)", "", "\n\n".join(cells))
    return len(prose(whole).split())


def inline(tokens: list) -> str:
    """The words of one block: no code, no formula, no address, and of a role neither its name nor its target."""
    words = []
    for token, after in zip_longest(tokens, tokens[1:]):
        if token.type == "text":
            is_role = after is not None and after.type == "code_inline"
            words.append(ROLE.sub(" ", token.content) if is_role else token.content)
        elif token.type in ("softbreak", "hardbreak", "code_inline", "math_inline"):
            words.append(" ")
    return "".join(words)
