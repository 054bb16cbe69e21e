"""What the weekly run says in its issue: ``python tools/weekly_report.py ADDRESS_OF_THE_RUN``."""

import re
import sys
from pathlib import Path

FAILING = re.compile(r"FAILED |ERROR |E  |dead: |make: |.*\d+ (failed|errors?)\b|\d+ links: ")
MOST = 200  # lines of each log; an issue holds 65,536 characters


def failing(log: str) -> str:
    """The lines of a log that say what failed, or its last ones where none does."""
    lines = [line[:240] for line in log.splitlines() if line.strip()]
    return "\n".join([line for line in lines if FAILING.match(line)][-MOST:] or lines[-20:])


def report(address: str, folder: Path) -> str:
    """Markdown: where it ran, the failing lines of tests and links, the versions of all libraries."""
    parts = [f"{address} failed with the newest release of every library."]
    for name, title in (("test.log", "Tests and notebooks"), ("links.log", "Links"), ("versions.txt", "Versions")):
        if (folder / name).exists():
            text = (folder / name).read_text(encoding="utf-8", errors="replace")
            shown = text.strip() if name == "versions.txt" else failing(text)
            parts.append(f"<details><summary>{title}</summary>\n\n~~~\n{shown[-20000:]}\n~~~\n\n</details>")
    return "\n\n".join(parts)


if __name__ == "__main__":
    print(report(sys.argv[1], Path.cwd()))
