"""Runs the chapters' first cell on a machine as bare as Colab's: ``python tools/bare_machine.py FOLDER``.

An environment is made in FOLDER (about 7 GB) with the packages that matter here at the versions of Colab's own list
(github.com/googlecolab/backend-info, June 2026), but for an older torch. The cell then runs as it is written in a
kernel of that environment; only git is told to take the address in it from a copy of this checkout. Ends with status 1
where a package that was there is another afterwards, where zsar does not import or where an attack does not run.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml
from execute import ROOT, code_cells

#: What stands on Colab, of all that zsar needs or that comes with what it needs.
COLAB = {
    "filelock": "3.29.0", "fsspec": "2025.3.0", "huggingface-hub": "1.17.0", "ipykernel": "6.17.1", "ipython": "7.34.0",
    "ipywidgets": "7.7.1", "jinja2": "3.1.6", "matplotlib": "3.10.0", "numpy": "2.0.2", "pandas": "2.2.2",
    "pillow": "11.3.0", "regex": "2025.11.3", "requests": "2.32.4", "safetensors": "0.7.0", "scipy": "1.16.3",
    "timm": "1.0.27", "torch": "2.11.0", "torchvision": "0.26.0", "tqdm": "4.67.3", "traitlets": "5.7.1",
    "wcwidth": "0.7.0",
}
#: An environment is made with an older torch than Colab's, as far as zsar allows; some are left for the cell to bring.
BARE = {name: version for name, version in COLAB.items() if name not in ("timm", "wcwidth", "regex")} | {
    "torch": "2.8.0", "torchvision": "0.23.0"}
PROBE = """
import json, torch, zsar.paths
from zsar.attacks import cross_entropy, pgd
from zsar.clip import ZeroShotClassifier, load_clip
from zsar.datasets import load_dataset
from zsar.widgets import LiveFigure, Menu, State
clip, data = load_clip(), load_dataset("DrawnSTL10").subset(8)
images, labels = data.stack()
classifier = ZeroShotClassifier(clip, data.classnames, data.templates)
moved = pgd(cross_entropy(classifier, labels), images, eps=4 / 255, alpha=1 / 255, steps=5)
right = [int((classifier(x).argmax(1) == labels).sum()) for x in (images, moved)]
figure = LiveFigure({"eps": Menu(("4/255",))}, {("4/255",): State("<p>4</p>", "At 4/255.")}, "A menu of one.")
found = {"data": str(zsar.paths.data_path()), "torch": torch.__version__, "figure": sorted(figure._repr_mimebundle_())}
print(json.dumps(found | dict(zip(("clean", "robust"), right))))
"""


def setup_cell() -> str:
    """The first cell of every chapter, as it stands."""
    return code_cells(nbformat.read(ROOT / "book/welcome.ipynb", as_version=4))[0].source


def repository() -> str:
    """The address in it."""
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]


def make_environment(folder: Path) -> Path:
    """An environment with the packages of ``BARE``, made unless it is there; returns its Python."""
    python = folder / "venv/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", *(f"{name}=={version}" for name, version in BARE.items())],
                   check=True)
    return python


def versions(python: Path) -> dict[str, str]:
    """What ``pip list`` of that Python says."""
    done = subprocess.run([python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True, text=True)
    return {row["name"].lower().replace("_", "-"): row["version"] for row in json.loads(done.stdout)}


def copy_checkout(folder: Path) -> Path:
    """A git repository with one commit of the files of this checkout, as they stand."""
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                           check=True, capture_output=True, text=True).stdout.split("\0")
    shutil.rmtree(folder, ignore_errors=True)
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    git = ["git", "-C", str(folder), "-c", "user.name=bare", "-c", "user.email=bare@example.org"]
    for command in (["init", "-q"], ["add", "-A", "-f"], ["commit", "-q", "-m", "as it stands"]):
        subprocess.run([*git, *command], check=True)
    return folder


def run_cells(python: Path, folder: Path, *sources: str) -> list[str]:
    """What the cells print, run in a kernel of that Python from an empty folder, with git redirected."""
    from nbclient import NotebookClient

    spec = folder / "jupyter/kernels/bare"
    for needed in (spec, folder / "empty"):
        needed.mkdir(parents=True, exist_ok=True)
    redirect = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_VALUE_0": repository(),
                "GIT_CONFIG_KEY_0": f"url.file://{copy_checkout(folder / 'checkout')}.insteadOf"}
    (spec / "kernel.json").write_text(json.dumps({
        "argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "bare",
        "language": "python", "env": redirect | {"ZSAR_PROFILE": "drawn", "TQDM_DISABLE": "1"}}))
    os.environ["JUPYTER_PATH"] = str(folder / "jupyter")
    os.environ.pop("PYTHONPATH", None)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookClient(notebook, timeout=1800, startup_timeout=300, kernel_name="bare",
                   resources={"metadata": {"path": str(folder / "empty")}}).execute()
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in notebook.cells]


def main(folder: Path) -> None:
    """Makes the environment, runs the cell and an attack, and compares the versions before and after."""
    python = make_environment(folder)
    before = versions(python)
    print("before:", " ".join(f"{name} {before[name]}" for name in BARE), flush=True)
    cell = setup_cell()
    printed, probe = run_cells(python, folder, cell, PROBE)
    after = versions(python)
    changed = {name: (version, after.get(name)) for name, version in before.items() if after.get(name) != version}
    print("\n".join(["--- the cell", cell, "--- what it printed", printed.strip(), "--- an attack", probe.strip()]))
    print("after: ", " ".join(f"{name} {after[name]}" for name in BARE))
    print("new:   ", " ".join(f"{name} {after[name]}" for name in sorted(set(after) - set(before))))
    found = json.loads(probe.strip().splitlines()[-1])
    if changed or found["robust"] >= found["clean"] or not Path(found["data"]).is_relative_to(folder):
        sys.exit(f"not as it should be: changed {changed}, attack {found}")
    print("nothing that was there has changed")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
