"""Runs every notebook under nbval on this machine's accelerator and records the outcome: ``make test GPU=1``."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from zsar.clip import load_clip
from zsar.results import commit

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "data" / "results" / "gpu-notebooks.json"
LIBRARIES = ("torch", "torchvision", "open_clip_torch", "numpy")


def device_name(kind: str) -> str:
    """The accelerator as its driver names it, where torch can ask."""
    backend = getattr(torch, kind)
    return backend.get_device_name() if hasattr(backend, "get_device_name") else f"{kind} on {platform.machine()}"


def outcomes(report: Path) -> dict[str, dict[str, object]]:
    """Notebook -> cells, failed cells and seconds, from pytest's JUnit report."""
    rows: dict[str, dict[str, object]] = {}
    for case in ET.parse(report).iter("testcase"):
        place = case.get("classname", "").removesuffix(".ipynb").split(".")  # nbval says book.welcome.ipynb
        name = "-".join(place[-2:]) if place[-1] == "instructor" else place[-1]
        row = rows.setdefault(name, {"passed": True, "cells": 0, "failed": 0, "seconds": 0.0})
        failed = case.find("failure") is not None or case.find("error") is not None
        row["cells"] += 1
        row["failed"] += failed
        row["seconds"] = round(row["seconds"] + float(case.get("time", 0)), 1)
        row["passed"] = row["failed"] == 0
    return rows


def main() -> int:
    """Pytest's exit status; 2 when there is no accelerator."""
    if not torch.accelerator.is_available():
        print(f"no accelerator here: torch {torch.__version__} finds no CUDA, MPS or XPU device", file=sys.stderr)
        return 2
    kind = torch.accelerator.current_accelerator().type
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.xml")
        status = subprocess.run([sys.executable, "-m", "pytest", "book", "-q", f"--junitxml={report}", *sys.argv[1:]],
                                cwd=ROOT, env=os.environ | {"ZSAR_DEVICE": kind, "ZSAR_DEMOS": "1"}).returncode
        notebooks = outcomes(report)
    record = {"commit": commit(), "model": load_clip().digest,
              "device": device_name(kind), "kind": kind, "date": datetime.now(UTC).date().isoformat(),
              "python": platform.python_version(), "versions": {name: version(name) for name in LIBRARIES},
              "passed": status == 0, "notebooks": notebooks}
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"recorded in {RECORD.relative_to(ROOT)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
