"""Makes ``.venv`` with everything the book and its tests need, and a stamp file that says so. Standard library only."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
STAMP = VENV / "zsar-installed"


def run(*command: object) -> bool:
    """Whether the command succeeded; its output goes to the terminal."""
    return subprocess.run([str(part) for part in command], cwd=ROOT).returncode == 0


def has_pip() -> bool:
    """Whether ``.venv`` exists and has its own pip."""
    return PYTHON.exists() and not subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True).returncode


def pip_command() -> list[object]:
    """A pip that installs into ``.venv``: its own, or, where ensurepip is missing, the outer Python's."""
    if has_pip() or run(sys.executable, "-m", "venv", VENV):
        return [PYTHON, "-m", "pip"]
    print("this Python cannot put pip into a new environment; installing with its own pip", flush=True)
    if not run(sys.executable, "-m", "venv", "--without-pip", VENV):
        sys.exit(f"could not make {VENV.name}: install your system's python3-venv package")
    return [sys.executable, "-m", "pip", "--python", PYTHON]


def main() -> None:
    """Installs the package in editable form with its extras, then what needs ``--no-deps``."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    # compiled when first imported: to compile all that is installed takes a minute and a half longer
    install = [*pip_command(), "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    print("installing zsar and its libraries into .venv (a few minutes the first time)", flush=True)
    if not run(*install, "--editable", ".[data,course,book,test]"):
        sys.exit("installation failed; pip's message stands above")
    if not run(*install, "--no-deps", *settings["tool"]["zsar"]["no-deps"]):
        sys.exit("installation failed; pip's message stands above")
    STAMP.touch()


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - the one place an older Python can reach
        sys.exit(f"zsar needs Python 3.11 or newer, found {sys.version.split()[0]}: make PYTHON=python3.12")
    main()
