"""Runs every notebook under nbval on this machine's accelerator and records the outcome: ``make test GPU=1``."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from book_facts import GPU, ROOT, stored

from zsar.clip import load_clip


def main() -> int:
    """Pytest's exit status; 2 when there is no accelerator."""
    if not torch.accelerator.is_available():
        print(f"no accelerator here: torch {torch.__version__} finds no CUDA, MPS or XPU device", file=sys.stderr)
        return 2
    kind = torch.accelerator.current_accelerator().type
    with tempfile.TemporaryDirectory() as folder:  # a record is of one run, and stays if that measures nothing
        new = Path(folder, "record.json")
        status = subprocess.run([sys.executable, "-m", "pytest", "book", "-q", *sys.argv[1:]], cwd=ROOT,
                                env=os.environ | {"ZSAR_DEVICE": kind, "ZSAR_NBVAL_RECORD": str(new)}).returncode
        record = stored(new)
    if record:
        GPU.write_text(json.dumps({"kind": kind, "model": load_clip().digest} | record, indent=1) + "\n",
                       encoding="utf-8")
        print(f"recorded in {GPU.relative_to(ROOT)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
