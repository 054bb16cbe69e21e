"""Colab: the runtime, the one line, the first cell on a machine of other versions, and a folder that lasts."""

import json
import os
import re
import subprocess
import sys
import time
import tomllib
import types
from pathlib import Path

import nbformat
import pytest

from zsar.__main__ import main
from zsar.course.release import RUNTIME
from zsar.paths import lasting_folder
from zsar.profiles import PROFILES, SIXTEEN

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import bare_machine  # noqa: E402
import build_book  # noqa: E402
import execute  # noqa: E402

NOTEBOOKS = sorted(path for path in (ROOT / "book").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
LINE = 'profile = get_profile()  # on a GPU: get_profile("colab"), OpenAI\'s CLIP on photographs (page "On Colab")'
NINE = """
from dataclasses import replace
from zsar.profiles import FREE, PROFILES
PROFILES["colab"] = replace(PROFILES["drawn"], name="colab", datasets=tuple(f"Drawn{name}" for name in FREE))
"""
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=build_book.name_of)


def code(path: Path) -> str:
    """All code of a notebook."""
    return "\n".join(cell.source for cell in execute.code_cells(nbformat.read(path, as_version=4)))


# the runtime

@each_notebook
def test_a_notebook_asks_for_a_gpu(path):
    metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
    assert {name: metadata.get(name) for name in RUNTIME} == RUNTIME


def test_refresh_keeps_the_runtime(tmp_path, monkeypatch):
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", execution_count=1)])
    for name in ("page.ipynb", "kept.ipynb"):
        nbformat.write(page, tmp_path / name)
    monkeypatch.setattr(build_book, "ROOT", tmp_path)
    build_book.refresh({tmp_path / "page.ipynb": tmp_path / "kept.ipynb"})
    metadata = nbformat.read(tmp_path / "page.ipynb", as_version=4).metadata
    assert {name: metadata.get(name) for name in RUNTIME} == RUNTIME


# the profile

@pytest.mark.parametrize("path", build_book.chapters(), ids=build_book.name_of)
def test_the_profile_is_chosen_by_one_line(path):
    lines = [line for line in code(path).splitlines() if re.search(r"\bget_profile\((None)?\)", line)]
    assert lines in ([], [LINE])


def test_the_chapters_that_evaluate_have_the_line_and_the_page_on_colab_shows_it():
    have = {path.stem for path in build_book.chapters() if LINE in code(path)}
    assert have >= {"welcome", "zero-shot-clip", "breaking-clip", "loss-variants", "finetuning-or-prompts",
                    "price-of-robustness"}
    page = nbformat.read(ROOT / "book/on-colab.ipynb", as_version=4)
    assert any(LINE in cell.source for cell in page.cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("path", build_book.chapters(), ids=build_book.name_of)
def test_no_page_asks_for_a_dataset_that_a_profile_lacks(path):
    places = [int(n) for n in re.findall(r"profile\.datasets\[(\d+)\]", code(path))]
    assert set(places) <= {0}, "profile.twin(NAME) finds the same on every profile"
    assert "profile.datasets[i]" not in code(path)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_dataset_has_a_twin(profile):
    twins = {name: profile.twin(name) for name in SIXTEEN}
    assert set(twins.values()) == set(profile.datasets)
    for name in SIXTEEN:
        if len(profile.datasets) == 16:
            assert twins[name] == profile.datasets[SIXTEEN.index(name)]
        elif name in profile.datasets:
            assert twins[name] == name
    with pytest.raises(ValueError, match="unknown dataset"):
        profile.twin("Flower102")


@pytest.mark.long
@pytest.mark.parametrize("path", [path for path in build_book.chapters() if LINE in code(path)],
                         ids=build_book.name_of)
def test_a_page_runs_with_nine_datasets(path, tmp_path, monkeypatch):
    """A page as on the profile ``colab``, but with the drawn CLIP, and drawn twins in the place of photographs."""
    startup = tmp_path / "profile_default/startup/nine.py"
    startup.parent.mkdir(parents=True)
    startup.write_text(NINE)
    for name, value in (execute.environment() | {"IPYTHONDIR": str(tmp_path), "ZSAR_PROFILE": "colab"}).items():
        monkeypatch.setenv(name, value)
    execute.run(path)


def test_colabs_recipe_does_what_a_t4_can():
    from zsar.recipes import get_recipe

    assert get_recipe(PROFILES["colab"].recipe).precision == "fp32"  # a T4 has no bfloat16


# the first cell

@pytest.fixture(scope="module")
def stubs(tmp_path_factory) -> Path:
    """The Python of an environment that holds nothing but the names and versions of what stands on Colab."""
    folder = tmp_path_factory.mktemp("stubs") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for name, version in bare_machine.COLAB.items():
        about = site / f"{name.replace('-', '_')}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (about / "RECORD").touch()
    return folder / "bin/python"


def would_install(python: Path, *words: str) -> dict[str, str]:
    """What pip would install there, by name; skips where there is no pip or no package registry."""
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    done = subprocess.run([*pip, "install", "--dry-run", "--quiet", "--report", "-", *words], capture_output=True,
                          text=True, timeout=600)
    if "No module named pip" in done.stderr or re.search(r"NewConnectionError|Temporary failure|timed out|from "
                                                         r"versions: none", done.stderr):
        pytest.skip(f"no package registry to ask: {done.stderr.strip().splitlines()[-1][:200]}")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout[done.stdout.index("{"):])
    return {one["metadata"]["name"].lower().replace("_", "-"): one["metadata"]["version"] for one in report["install"]}


def asked_for() -> list[list[str]]:
    """What the first cell installs, a list of words a call of pip; for the package itself, what it requires."""
    calls = re.findall(r"%pip install -q (.+)", bare_machine.setup_cell())
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    words = [[word.strip('"') for word in re.findall(r'"[^"]+"|\S+', call)] for call in calls]
    assert [call for call in words if call[0].startswith("zsar @ git+")]
    return [settings["project"]["dependencies"] if call[0].startswith("zsar @") else call for call in words]


def test_the_first_cell_replaces_nothing_of_colabs(stubs):
    found = {name: version for call in asked_for() for name, version in would_install(stubs, *call).items()}
    assert {"open-clip-torch", "torchattacks"} <= set(found)  # that which Colab lacks
    assert not set(found) & set(bare_machine.COLAB)


def test_a_bound_above_colabs_would_be_seen(stubs):
    assert "ipywidgets" in would_install(stubs, "ipywidgets>=8.1")


@pytest.mark.long
def test_the_first_cell_on_a_bare_machine(tmp_path):
    """About 7 GB and several minutes: an environment is made, the cell runs as it stands, an attack follows."""
    done = subprocess.run([sys.executable, ROOT / "tools/bare_machine.py", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing that was there has changed" in done.stdout


# results that last

@pytest.fixture
def drive(tmp_path, monkeypatch) -> list[str]:
    """A stand-in for Colab, whose Drive is a folder; what it was asked to mount."""
    mounted: list[str] = []

    def mount(place: str) -> None:
        mounted.append(place)
        (Path(place) / "MyDrive").mkdir(parents=True, exist_ok=True)

    colab = types.ModuleType("google.colab")
    colab.drive = types.SimpleNamespace(mount=mount)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setattr("zsar.paths.DRIVE", tmp_path / "drive")
    return mounted


def test_a_lasting_folder_is_in_drive(drive, tmp_path):
    folder = lasting_folder("my-table")
    assert folder == tmp_path / "drive/MyDrive/zsar/my-table" and folder.is_dir()
    assert drive == [str(tmp_path / "drive")]
    assert lasting_folder("my-table") == folder


def test_elsewhere_it_is_where_one_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert lasting_folder("my-table") == tmp_path / "my-table"
    assert (tmp_path / "my-table").is_dir()


def test_a_table_in_drive_goes_on_after_a_disconnect(drive, monkeypatch):
    """Killed when a first result is there, as a machine is taken away; the same line keeps it and adds the rest."""
    out = lasting_folder("my-table")
    line = [sys.executable, "-m", "zsar", "reproduce", "--methods", "clip", "--images", "24", "--out", str(out),
            "--datasets", "DrawnCIFAR10,DrawnPCAM,DrawnEuroSAT,DrawnDTD", "--attacks", "none,pgd-20"]
    monkeypatch.setenv("ZSAR_DEVICE", "cpu")
    process = subprocess.Popen(line, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    while not (cells := list((out / "cells").rglob("*.json"))) and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.wait()
    written = {path: path.stat().st_mtime_ns for path in cells}
    assert 1 <= len(written) < 8
    assert main(line[3:]) == 0
    assert len(list((out / "cells").rglob("*.json"))) == 8
    assert {path: path.stat().st_mtime_ns for path in written} == written
