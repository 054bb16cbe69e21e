"""Checks the external links of the book's pages, the README and the other documents: ``make links``.

Each address is asked for once, HEAD first and GET where that fails. Dead is what answers 404 or 410, or never answers;
another refusal (401, 403, 429, ...) shows that something is there, and is reported without failing.
"""

import re
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("*.md", "*.cff", "_config.yml", "LICENSE-TEXT", "book/**/*.md", "book/**/*.ipynb", "book/*.bib",
           ".github/**/*.md", ".github/**/*.yml")
ADDRESS = re.compile(r"https?://[^\s<>\"'`{}|\\^\]]+")
PLACEHOLDERS = re.compile(r"YOUR_NAME|127\.0\.0\.1|localhost|\.\.\.|example\.(org|com)")
IDENTIFIERS = re.compile(r"^ *(doi|eprint) *= *\{([^}]+)\}", re.MULTILINE)
RESOLVERS = {"doi": "https://doi.org/", "eprint": "https://arxiv.org/abs/"}
GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
AGENT = {"User-Agent": "Mozilla/5.0 (compatible; zsar-link-check)", "Accept": "*/*"}


def text_of(path: Path) -> str:
    """What a reader sees of a file: cells without outputs, identifiers of a bibliography as addresses."""
    if path.suffix == ".bib":
        return IDENTIFIERS.sub(lambda found: RESOLVERS[found[1]] + found[2], path.read_text(encoding="utf-8"))
    if path.suffix == ".ipynb":
        return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    return path.read_text(encoding="utf-8")


def addresses(text: str) -> set[str]:
    """The external addresses in a text, without fragments, the punctuation after them and placeholders."""
    found = set()
    for address in ADDRESS.findall(text):
        address = address.split("#")[0].rstrip(".,;:!?*_")
        while address.endswith(")") and address.count(")") > address.count("("):
            address = address[:-1].rstrip(".,;:!?*_")
        if not PLACEHOLDERS.search(address):
            found.add(address)
    return found


def collect(root: Path) -> dict[str, list[str]]:
    """Address -> the files of the checkout that name it."""
    places: dict[str, list[str]] = {}
    for path in sorted({path for pattern in SOURCES for path in root.glob(pattern)}):
        for address in addresses(text_of(path)):
            places.setdefault(address, []).append(path.relative_to(root).as_posix())
    return places


def ask(address: str, method: str, timeout: float) -> str:
    """What one request comes to: ``ok``, ``dead: ...`` or ``unsure: ...``."""
    try:
        request = urllib.request.Request(address, headers=AGENT, method=method)
        with urllib.request.urlopen(request, timeout=timeout):
            return "ok"
    except urllib.error.HTTPError as error:
        error.close()
        return f"{'dead' if error.code in GONE else 'unsure'}: HTTP {error.code}"
    except (OSError, ValueError, HTTPException) as error:  # no such host, refused, timed out, not an address
        return f"dead: {error}"


def check(address: str, timeout: float = 20, tries: int = 3, pause: float = 2) -> str:
    """The answer to HEAD if it is ``ok``, else to GET, which is tried again after a pause."""
    answer = ask(address, "HEAD", timeout)
    for n in range(tries):
        if answer == "ok":
            break
        time.sleep(pause * n)
        answer = ask(address, "GET", timeout)
        if answer.startswith("dead: HTTP"):
            break
    return answer


def main(root: Path = ROOT, **settings: float) -> int:
    """Prints what is not well and a summary; exit status 1 if a link is dead."""
    places = collect(root)
    with ThreadPoolExecutor(16) as pool:
        answers = dict(zip(places, pool.map(lambda address: check(address, **settings), places), strict=True))
    for address, answer in sorted(answers.items()):
        if answer != "ok":
            print(f"{answer}\n  {address}\n  in {', '.join(places[address])}")
    count = {word: sum(answer.startswith(word) for answer in answers.values()) for word in ("ok", "unsure", "dead")}
    print(f"{len(answers)} links: {count['ok']} fine, {count['unsure']} unsure, {count['dead']} dead")
    return int(count["dead"] > 0)


if __name__ == "__main__":
    sys.exit(main())
