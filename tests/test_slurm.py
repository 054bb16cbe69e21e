"""The SLURM script: bash reads it, and its line of torchrun runs, with what stands in for SLURM, on this machine."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from zsar.results import Store

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "tools" / "reproduce.slurm"
STAND_INS = {
    "scontrol": 'echo "$@" >> "$CALLS"\n[ "$1" != show ] || echo localhost\n',
    # srun starts the command once a node
    "srun": 'shift  # its own option\nfor node in $(seq "$SLURM_NNODES"); do "$@" & done\nwait -n\nwait\n',
}


@pytest.fixture
def job(tmp_path):
    """The environment of a job of two nodes; ``CALLS`` is a file of what scontrol was asked."""
    for name, text in STAND_INS.items():
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/bash\n{text}")
        file.chmod(0o755)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node[1-2]",
                         "RANKS": "1", "PORT": str(port), "PYTHONPATH": str(ROOT), "CALLS": str(tmp_path / "calls"),
                         "ZSAR_DEVICE": "cpu"}


def test_bash_reads_the_script():
    done = subprocess.run(["bash", "-n", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_its_options_are_for_sbatch():
    text = SCRIPT.read_text(encoding="utf-8")
    directives = re.findall(r"^#SBATCH (--[\w-]+)", text, re.MULTILINE)
    assert {"--nodes", "--ntasks-per-node", "--gpus-per-node", "--requeue", "--signal", "--time"} <= set(directives)
    first_command = text.index("\nset -euo")
    assert text.rindex("#SBATCH") < first_command, "sbatch stops reading at the first command"


@pytest.mark.long
def test_two_nodes_meet_and_share_a_store(job, tmp_path):
    out = tmp_path / "store"
    done = subprocess.run(["bash", SCRIPT, "--profile", "drawn", "--methods", "clip", "--datasets",
                           "DrawnCIFAR10,DrawnDTD", "--attacks", "none", "--images", "8", "--out", out],
                          env=job, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Clean accuracy") == 1, "one rank of the two reports"
    assert {header["key"]["dataset"] for header in Store(out, write=False).headers()} == {"DrawnCIFAR10", "DrawnDTD"}
    assert Path(job["CALLS"]).read_text() == "show hostnames node[1-2]\n"


def test_near_its_end_the_job_goes_back_into_the_queue(job, tmp_path):
    (tmp_path / "bin" / "srun").write_text('#!/bin/bash\nsleep .3\nkill -USR1 "$PPID"\n')
    done = subprocess.run(["bash", SCRIPT], env=job, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "back into the queue" in done.stdout
    assert Path(job["CALLS"]).read_text().splitlines()[-1] == "requeue 7"
