"""What a build of the book is: version and commit, what it was made with, what its chapters cost, what nbval found."""

import json
import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import nbformat
from prose import count_words

import zsar

ROOT = Path(__file__).resolve().parent.parent
NBVAL = ROOT / "_build" / "nbval.json"
LIBRARIES = ("torch", "torchvision", "open_clip_torch", "torchattacks", "numpy", "matplotlib", "ipywidgets",
             "jupyter-book", "sphinx")
GPU = ROOT / "data" / "results" / "gpu-notebooks.json"


def cpu_name() -> str:
    """The processor as the system names it."""
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def versions(libraries: tuple[str, ...]) -> dict[str, str]:
    """What is installed of them."""
    return {name: version(name) for name in libraries}


def book_commit(root: Path = ROOT) -> str:
    """Short commit of the checkout at ``root``, "+" behind it if tracked files changed since; "none" without git.

    A copy without git that lies somewhere inside another repository has no commit either.
    """
    git = ["git", "-C", str(root)]
    try:
        top, head = subprocess.run([*git, "rev-parse", "--show-toplevel", "--short", "HEAD"], capture_output=True,
                                   text=True, check=True).stdout.splitlines()
        changed = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True,
                                 text=True, check=True).stdout
    except (OSError, ValueError, subprocess.CalledProcessError):
        return "none"
    if Path(top).resolve() != root.resolve():
        return "none"
    return head + ("+" if changed.strip() else "")


def stored(path: Path) -> dict:
    """A JSON file, or nothing where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def costs(copies: dict[Path, Path]) -> dict[str, dict]:
    """Chapter -> seconds and peak_mb of the run that its outputs are of."""
    found = {path.stem: nbformat.read(kept, as_version=4).metadata.get("zsar", {}) for path, kept in copies.items()}
    return {name: cost for name, cost in found.items() if "seconds" in cost}


def words() -> dict[str, int]:
    """Page, as Sphinx names it below ``book``, -> words to read, of all notebooks."""
    found = {}
    for path in sorted((ROOT / "book").rglob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        name = path.relative_to(ROOT / "book").with_suffix("").as_posix()
        found[name] = count_words(cell.source for cell in cells if cell.cell_type == "markdown")
    return found


def facts(copies: dict[Path, Path]) -> dict:
    """All of it, for the Sphinx extension and for the key that says whether pages are as they should be."""
    return {"version": zsar.__version__, "commit": book_commit(), "python": platform.python_version(),
            "versions": versions(LIBRARIES), "processor": cpu_name(),
            "costs": costs(copies), "words": words(), "nbval": stored(NBVAL),
            "gpu": stored(GPU)}
