"""Runs one notebook in a kernel of its own and keeps its outputs: ``python tools/execute.py NOTEBOOK RESULT``."""

import hashlib
import json
import os
import re
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
INPUTS = ("zsar/**/*.py", "zsar/**/templates/*", "data/datasets/*", "data/drawn/**/*",
          "data/expected/**/*", "data/reported/**/*", "data/results/**/*")
LIBRARIES = ("torch", "torchvision", "open_clip_torch", "torchattacks", "numpy", "matplotlib", "ipywidgets")


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The cells that run, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def source_digest(notebook: nbformat.NotebookNode) -> str:
    """Digest of everything that a run of the notebook executes; prose does not change it."""
    cells = [[cell.source, cell.metadata.get("tags", [])] for cell in code_cells(notebook)]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:16]


def inputs_digest() -> str:
    """Digest of what every chapter may depend on: the package, its data, and the versions of what computes."""
    digest = hashlib.sha256(sys.version.encode())
    for name in LIBRARIES:
        digest.update(f"{name} {version(name)}\n".encode())
    for path in sorted(path for pattern in INPUTS for path in ROOT.glob(pattern) if path.is_file()):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def environment() -> dict[str, str]:
    """What a chapter runs in: the embedded profile, no network, one thread, inline figures, no progress bars."""
    fixed = {"ZSAR_PROFILE": "drawn", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1",
             "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    kept = {name: value for name, value in os.environ.items()
            if name not in ("MPLBACKEND", "PYTHONDONTWRITEBYTECODE")}  # the first loses figures, the second time
    return {"OMP_NUM_THREADS": "1", **kept, **fixed}


def run(path: Path) -> nbformat.NotebookNode:
    """The executed notebook, with seconds and the kernel's peak memory in ``metadata.zsar``; raises on an error."""
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    start = time.perf_counter()
    NotebookClient(notebook, timeout=1800, kernel_name="python3",
                   resources={"metadata": {"path": str(path.parent)}}).execute()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    notebook.metadata["zsar"] = {"seconds": round(time.perf_counter() - start, 1),
                                 "peak_mb": round(peak / (1e6 if sys.platform == "darwin" else 1e3))}
    return notebook


def main() -> None:
    """Executes one notebook; an exception in a cell prints what failed and exits with status 1."""
    from nbclient.exceptions import CellExecutionError

    source, result = map(Path, sys.argv[1:])
    try:
        notebook = run(source)
    except CellExecutionError as error:
        sys.exit(re.sub(r"\x1b\[[0-9;]*m", "", str(error)))
    part = result.with_suffix(".part")
    nbformat.write(notebook, part)
    part.replace(result)


if __name__ == "__main__":
    main()
