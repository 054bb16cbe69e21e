"""What a release carries: ``python tools/release.py notes v0.1.0`` and ``... notebooks FILE.zip``."""

import re
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def version(root: Path = ROOT) -> str:
    """The package's version, read without importing it."""
    return re.search(r'^__version__ = "(.+)"', (root / "zsar/__init__.py").read_text(encoding="utf-8"), re.M)[1]


def notes(changelog: str, name: str) -> str:
    """The section of a version, whose heading is ``## 0.1.0 (2026-12-01)``; ends the program if it is not dated."""
    found = re.search(rf"^## {re.escape(name)} \(\d{{4}}-\d\d-\d\d\)\n(.*?)(?=^## |\Z)", changelog, re.M | re.S)
    return found[1].strip() if found else sys.exit(f"CHANGELOG.md has no section '## {name} (YYYY-MM-DD)'")


def pack_notebooks(root: Path, target: Path) -> None:
    """Packs the students' notebooks, each named by its assignment."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.glob("book/assignments/*/student.ipynb")):
            archive.write(path, f"{path.parent.name}.ipynb")


def main(task: str, argument: str) -> None:
    """Prints the notes of a tag, or writes the archive of notebooks."""
    if task == "notebooks":
        return pack_notebooks(ROOT, Path(argument))
    if argument != f"v{version()}":
        sys.exit(f"the tag is {argument}, the package's version is {version()}")
    print(notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version()))


if __name__ == "__main__":
    main(*sys.argv[1:])
