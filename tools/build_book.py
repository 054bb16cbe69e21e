"""Runs every chapter and builds ``_build/html``; with ``--refresh`` renews the outputs of the committed notebooks,
those of the assignments with solutions among them.

Chapters run two at a time, each in its own process and kernel, and their outputs are kept in ``_build/executed`` under
a key of the code cells, the package, the data and the versions of the libraries. The pages are built by jupyter-book
from copies in ``_build/src``, so that the committed notebooks stay as they are. Success is recorded after success only,
and a build always starts from nothing: an incremental ``-W`` build turns green the second time.
"""

import base64
import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import yaml
from book_facts import facts
from execute import ROOT, code_cells, environment, inputs_digest, source_digest
from vendor import fetch

BUILD = ROOT / "_build"
EXECUTED, HTML, DONE = BUILD / "executed", BUILD / "html", BUILD / "html.key"
PAGE_INPUTS = ("_config.yml", "_toc.yml", "book/**/*", "tools/**/*.py", "tools/sphinx_ext/**/*",
               "zsar/**/*.py", "data/results/*.json")


def say(text: str) -> None:
    """A progress line, shown at once."""
    print(text + "\n", end="", flush=True)  # one write: two chapters at a time report


def pages() -> list[str]:
    """The pages of the table of contents, in its order: ``book/welcome``, ..."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(entry["file"] for part in toc.get("parts", [toc]) for entry in part.get("chapters", []))]


def notebooks() -> list[Path]:
    """Those of the pages that are notebooks."""
    return [path for page in pages() if (path := ROOT / f"{page}.ipynb").exists()]


def chapters() -> list[Path]:
    """Those that are run: all but the students' assignments, which are shown as they are handed out."""
    return [path for path in notebooks() if path.name != "student.ipynb"]


def instructor_notebooks() -> list[Path]:
    """The assignments with their solutions, which are run but are no pages."""
    return sorted(ROOT.glob("book/assignments/*/instructor.ipynb"))


def name_of(path: Path) -> str:
    """A notebook's name: ``welcome``, ``attack-it-instructor``."""
    return f"{path.parent.name}-{path.stem}" if path.stem in ("instructor", "student") else path.stem


def executed_copy(path: Path, inputs: str) -> Path:
    """Where the outputs of the chapter, as it stands, are or will be kept."""
    key = source_digest(nbformat.read(path, as_version=4)) + inputs
    return EXECUTED / f"{name_of(path)}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.ipynb"


def run_chapter(path: Path, inputs: str) -> tuple[Path, str | None]:
    """Executes a chapter unless its outputs are kept already; returns the executed copy and what failed."""
    name, kept = name_of(path), executed_copy(path, inputs)
    if kept.exists():
        say(f"  {name}: unchanged, outputs kept")
        return kept, None
    say(f"  {name}: running")
    done = subprocess.run([sys.executable, ROOT / "tools" / "execute.py", path, kept], env=environment(),
                          capture_output=True, text=True)
    if done.returncode:
        say(f"  {name}: FAILED")
        return kept, done.stderr
    for old in EXECUTED.glob(f"{name}-*.ipynb"):
        if old != kept and old.stem.rsplit("-", 1)[0] == name:
            old.unlink()
    cost = nbformat.read(kept, as_version=4).metadata["zsar"]
    say(f"  {name}: {cost['seconds']:.0f} s, peak memory {cost['peak_mb']} MB")
    return kept, None


def run_chapters(paths: list[Path]) -> dict[Path, Path]:
    """Chapter -> executed copy for all chapters; ends the program if a cell of any raised."""
    EXECUTED.mkdir(parents=True, exist_ok=True)
    inputs = inputs_digest()
    workers = min(2, os.cpu_count() or 1)
    if os.environ.get("ZSAR_PROFILE", "drawn") != "drawn":
        say("ZSAR_PROFILE is set aside: the book is always built on the drawn profile")
    say(f"running {len(paths)} notebooks on the drawn profile, {workers} at a time")
    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(lambda path: run_chapter(path, inputs), paths))
    failures = [f"{path.name}:\n{error}" for path, (_, error) in zip(paths, results, strict=True) if error]
    if failures:
        sys.exit("\n".join([*failures, "the book was not built: a cell raised an exception"]))
    return {path: kept for path, (kept, _) in zip(paths, results, strict=True)}


def with_outputs(path: Path, kept: Path) -> nbformat.NotebookNode:
    """The chapter as it stands, with the outputs of its executed copy.

    Widgets are dead without their kernel: of an interactive figure the HTML is kept, and no widget's view or state.
    """
    notebook, ran = (nbformat.read(file, as_version=4) for file in (path, kept))
    for cell, other in zip(code_cells(notebook), code_cells(ran), strict=True):
        cell.outputs, cell.execution_count = other.outputs, other.execution_count
        cell.metadata.pop("execution", None)
        for output in cell.outputs:
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    notebook.metadata.pop("widgets", None)
    return notebook


def refresh(copies: dict[Path, Path]) -> None:
    """Writes the outputs into the committed notebooks, with the digest of the code that made them and what it took."""
    from zsar.course.release import RUNTIME  # not above: it imports torch, which a warm build does not need

    for path, kept in copies.items():
        notebook = with_outputs(path, kept)
        notebook.metadata.update(copy.deepcopy(RUNTIME))
        notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
        notebook.metadata["language_info"] = {"name": "python"}
        ran = nbformat.read(kept, as_version=4).metadata.get("zsar", {})
        notebook.metadata["zsar"] = {"source": source_digest(notebook), **ran}
        nbformat.write(notebook, path)
        say(f"  {path.relative_to(ROOT)}: outputs renewed")


def readme_picture(welcome: Path) -> bytes:
    """The first picture of the first page, which the README shows too."""
    outputs = [output for cell in code_cells(nbformat.read(welcome, as_version=4)) for output in cell.outputs]
    pictures = [output.data["image/jpeg"] for output in outputs if "image/jpeg" in output.get("data", {})]
    return base64.b64decode(pictures[0])


def stage(copies: dict[Path, Path], source: Path) -> None:
    """Lays out ``source``: configuration, pages, the Sphinx extension, and the chapters with fresh outputs."""
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "tools/sphinx_ext", source / "tools/sphinx_ext")
    shutil.copytree(ROOT / "book", source / "book", ignore=shutil.ignore_patterns(".*", "*.ipynb"))
    for path in set(notebooks()) - set(copies):
        (source / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, source / path.relative_to(ROOT))
    for path, kept in copies.items():
        nbformat.write(with_outputs(path, kept), source / path.relative_to(ROOT))


def run_sphinx(copies: dict[Path, Path], target: Path, vendor: Path | None) -> str | None:
    """Builds ``target/_build/html`` with warnings as errors; returns what was printed if it failed, else None."""
    source = target / "_build" / "src"
    stage(copies, source)
    known = source / "facts.json"
    known.write_text(json.dumps(facts(copies)), encoding="utf-8")
    command = [Path(sys.executable).with_name("jupyter-book"), "build", source, "--path-output", target, "--all", "-q",
               "-W", "-n", "--keep-going"]
    settings = {"ZSAR_FACTS": str(known)} | ({"ZSAR_VENDOR": str(vendor)} if vendor else {})
    done = subprocess.run(command, cwd=ROOT, env=environment() | settings, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    return done.stdout if done.returncode else None


def build_key(copies: dict[Path, Path], note: str | None) -> str:
    """Digest of everything the built pages depend on."""
    known = json.dumps(facts(copies), sort_keys=True)
    digest = hashlib.sha256(repr((sys.version, note, known, [kept.name for kept in copies.values()])).encode())
    inputs = (path for pattern in PAGE_INPUTS for path in ROOT.glob(pattern))
    for path in sorted(path for path in inputs if path.is_file() and not {"_made", "__pycache__"} & set(path.parts)):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def build_pages(copies: dict[Path, Path]) -> None:
    """Builds the HTML with warnings as errors, unless the pages there were built from exactly this."""
    note = fetch(BUILD / "vendor")
    if note:
        say(f"pages will load MathJax from its CDN ({note})")
    key = build_key(copies, note)
    if DONE.exists() and DONE.read_text() == key and (HTML / "index.html").exists():
        return say("pages: unchanged")
    DONE.unlink(missing_ok=True)
    shutil.rmtree(HTML, ignore_errors=True)
    start = time.perf_counter()
    if failure := run_sphinx(copies, ROOT, None if note else BUILD / "vendor"):
        sys.exit(f"{failure}\nthe book was not built: Sphinx warned or failed, see above")
    DONE.write_text(key)
    say(f"pages: built in {time.perf_counter() - start:.0f} s")


def main() -> None:
    """``make book`` and ``make refresh``."""
    start = time.perf_counter()
    if "--refresh" in sys.argv[1:]:
        refresh(run_chapters([*chapters(), *instructor_notebooks()]))
        (ROOT / "book/_static/attack.jpg").write_bytes(readme_picture(ROOT / "book/welcome.ipynb"))
        return
    build_pages(run_chapters(chapters()))
    say(f"the book is in _build/html ({time.perf_counter() - start:.0f} s); `make serve` shows it")


if __name__ == "__main__":
    main()
