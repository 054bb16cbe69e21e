"""The tables of symbols and the equations hold each other: nothing is unexplained, nothing is explained in vain."""

import ast
import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from build_book import pages  # noqa: E402

NOTATION = ROOT / "book" / "notation.md"
MATH = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
INLINE = re.compile(r"(?<![\\$])\$([^$\n]+)\$(?!\$)")
ACCENTS = r"hat|bar|tilde|overline|mathcal|mathbb"
GREEK = {"alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "kappa", "lambda", "mu",
         "nu", "xi", "pi", "rho", "sigma", "tau", "phi", "varphi", "chi", "psi", "omega", "Gamma", "Delta", "Theta",
         "Lambda", "Pi", "Sigma", "Phi", "Psi", "Omega", "ell", "nabla", "odot"}
#: One symbol, or the braces and the marks of sub- and superscripts between symbols.
TOKEN = re.compile(r"\\(?:" + ACCENTS + r")\s*[A-Za-z0-9]|\\mathrm\{\w+\}|\\[A-Za-z]+|[A-Za-z]|[_^{}']|\d")


def plain(formula: str) -> str:
    """A formula without words, labels and names of operators, and with one way to write accents."""
    formula = re.sub(r"\\(?:text(?!style)|operatorname)\*?\{[^{}]*\}|\\(?:begin|end)\{\w+\}", " ", formula)
    return re.sub(r"\\(" + ACCENTS + r")\s*\{?\s*([A-Za-z0-9])\}?", r"\\\1 \2", formula)


def tokens(formula: str) -> list[str]:
    """Symbols, and sub- and superscripts always in braces."""
    found, closing = [], False
    for token in TOKEN.findall(plain(formula)):
        found.append(re.sub(r"\s+", " ", token))
        if closing and token != "{":
            found[-1:] = ["{", found[-1], "}"]
        closing = token in "_^" and len(token) == 1
    return found


def is_symbol(token: str) -> bool:
    """Letters, Greek ones, accented ones and upright names; not commands, digits, braces."""
    return (token.isalpha() and len(token) == 1 or token[1:] in GREEK
            or re.match(r"\\(mathrm|" + ACCENTS + r")\b", token) is not None)


def take(sequence: list[str], symbol: str) -> tuple[list[str], bool]:
    """The tokens without a symbol such as ``x_a``, and whether it was there."""
    wanted = tokens(symbol)
    if wanted[-1] == "}":
        wanted = wanted[:-1]  # x_{a,i} has x_a in it
    starts = [n for n in range(len(sequence)) if sequence[n:n + len(wanted)] == wanted]
    for n in starts:
        sequence = [*sequence[:n], *[""] * len(wanted), *sequence[n + len(wanted):]]
    return sequence, bool(starts)


def unexplained(formula: str, table: set[str]) -> set[str]:
    """The symbols of a formula that a table lacks; its longest symbols are looked for first."""
    sequence = tokens(formula)
    for symbol in sorted(table, key=lambda name: -len(tokens(name))):
        sequence, _ = take(sequence, symbol)
    return {token for token in sequence if is_symbol(token)}


def prose(page: str) -> str:
    """The markdown of a page, without its code blocks."""
    path = ROOT / f"{page}.md"
    if path.exists():
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(ROOT / f"{page}.ipynb", as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def displayed(page: str) -> list[str]:
    """The displayed equations of a page."""
    return MATH.findall(prose(page))


def rows(section: int) -> list[list[str]]:
    """The cells of a table of the notation page: 1 for the whole book, 2 for single pages."""
    text = NOTATION.read_text(encoding="utf-8").split("\n## ")[section]
    return [[cell.strip() for cell in line.strip("|").split(" | ")]
            for line in text.splitlines() if line.startswith("| ")][1:]


def symbols_of_the_book() -> list[str]:
    """Those of the first table."""
    return [symbol for row in rows(1) for symbol in INLINE.findall(row[0])]


def symbols_of_pages() -> dict[str, list[str]]:
    """Page -> its symbols of the second table; a row without a page belongs to the one above."""
    found, page = {}, ""
    for first, symbols, _ in rows(2):
        if link := re.search(r"\(([\w/-]+)\.ipynb\)", first):
            page = f"book/{link[1]}"
        found.setdefault(page, []).extend(INLINE.findall(symbols))
    return found


def names_in_code() -> set[str]:
    """Functions, classes, parameters and fields of the package."""
    found = set()
    for path in ROOT.glob("zsar/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.arg):
                found.add(node.arg)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
    return found


def test_notebooks_hold_equations_that_jupyter_draws():
    """It shows the source of a directive."""
    assert [page for page in pages() if (ROOT / f"{page}.ipynb").exists() and "{math}" in prose(page)] == []


def test_every_symbol_of_an_equation_is_explained():
    everywhere, here = symbols_of_the_book(), symbols_of_pages()
    missing = {page: found for page in pages() for formula in displayed(page)
               if (found := unexplained(formula, {*everywhere, *here.get(page, [])}))}
    assert missing == {}
    assert sum(len(displayed(page)) for page in pages()) > 50


def test_every_symbol_explained_is_used():
    others = [page for page in pages() if page != "book/notation"]
    formulas = [tokens(formula) for page in others for formula in [*displayed(page), *INLINE.findall(prose(page))]]
    assert [symbol for symbol in symbols_of_the_book()
            if not any(take(formula, symbol)[1] for formula in formulas)] == []
    assert [(page, symbol) for page, symbols in symbols_of_pages().items() for symbol in symbols
            if not any(take(tokens(formula), symbol)[1] for formula in displayed(page))] == []


def test_no_symbol_is_explained_twice():
    for symbols in (symbols_of_the_book(), *symbols_of_pages().values()):
        assert len(symbols) == len(set(symbols))


def test_names_in_python_exist():
    known = names_in_code()
    stated = {name for row in rows(1) for code in re.findall(r"`([^`]+)`", row[1]) for name in re.findall(r"\w+", code)}
    assert len(stated) > 12
    assert stated - known == set()
    assert "perturb_everything" not in known


@pytest.mark.parametrize(("formula", "missing"), [
    (r"x_a = x + \delta", set()), (r"x_{a,i}", set()), (r"\max_k \exp(x) \text{ of all } q", {"q"}),
    (r"\zeta + x", {r"\zeta"}), (r"\hat x", {r"\hat x"}), (r"\mathrm{KL}(x)", {r"\mathrm{KL}"}), (r"x_b", {"b"}),
    (r"\operatorname{clip}_{[0, 1]}(x)", set())])
def test_what_is_missing_is_found(formula, missing):
    assert unexplained(formula, {"x", "x_a", r"\delta", "k", "i"}) == missing
