"""The house holds together: one list of requirements, a wheel that stands alone, lint-free sources."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("data", "course", "book", "test")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_environment_yml_lists_what_pyproject_lists():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, nested = environment["dependencies"]
    extras = PROJECT["project"]["optional-dependencies"]
    assert python == f"python{PROJECT['project']['requires-python']}"
    assert pip == "pip"
    listed = [*PROJECT["project"]["dependencies"], *sum((extras[name] for name in EXTRAS), []), "-e ."]
    assert nested["pip"] == listed


@pytest.mark.parametrize("name", ["environment.yml", "README.md"])
def test_no_deps_line_is_pyprojects(name):
    found = re.findall(r'pip install --no-deps "([^"]+)"', (ROOT / name).read_text(encoding="utf-8"))
    assert found == PROJECT["tool"]["zsar"]["no-deps"]


def test_requirements_are_lower_bounds():
    extras = PROJECT["project"]["optional-dependencies"]
    for requirement in [*PROJECT["project"]["dependencies"], *sum(extras.values(), [])]:
        assert re.fullmatch(r"[A-Za-z0-9_-]+>=[\w.]+(,<[\w.]+)?", requirement), requirement


def test_sources_are_lint_free():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder outside the checkout into which the built wheel, and nothing else, was installed."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True).returncode:
        pytest.skip("this environment has no pip to build a wheel with")
    for command in (["wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT],
                    ["install", "--quiet", "--no-deps", "--no-index", "--target", folder / "site", "--find-links",
                     folder, "zsar"]):
        done = subprocess.run([*pip, *map(str, command)], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    wheel = next(folder.glob("zsar-*.whl"))
    assert wheel.stat().st_size < 20e6
    return folder / "site"


def run_installed(site: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Runs the installed package from its own folder, so that the checkout is out of reach."""
    program = "import sys, runpy; sys.path.insert(0, sys.argv.pop(1)); "
    return subprocess.run([sys.executable, "-c", program + arguments[0], str(site), *arguments[1:]], cwd=site,
                          capture_output=True, text=True)


def test_wheel_finds_its_own_data(installed):
    done = run_installed(installed, "from zsar.paths import data_path; "
                         "print(data_path('drawn', 'vocabulary.txt').resolve()); "
                         "from zsar.datasets import load_dataset; print(load_dataset('DrawnImageNet')[0][0].shape)")
    assert done.returncode == 0, done.stderr
    vocabulary, shape = done.stdout.splitlines()
    assert Path(vocabulary).is_file()
    assert Path(vocabulary).is_relative_to(installed.resolve() / "zsar" / "_data")
    assert shape == "torch.Size([3, 48, 48])"


def test_wheel_carries_all_shipped_data(installed):
    kept = {"datasets", "drawn", "expected", "reported", "results"}
    files = {path.relative_to(ROOT / "data") for folder in kept for path in (ROOT / "data" / folder).rglob("*")
             if path.is_file()}
    carried = {path.relative_to(installed / "zsar" / "_data") for path in (installed / "zsar" / "_data").rglob("*")
               if path.is_file()}
    assert carried == files


def test_wheel_runs_its_command_line(installed):
    done = run_installed(installed, "runpy.run_module('zsar', run_name='__main__', alter_sys=True)", "--help")
    assert done.returncode == 0, done.stderr
    assert "attack" in done.stdout
    assert "evaluate" in done.stdout
