"""Where measured numbers come from, and whether they are still what they were."""

import json
import os
import platform
import subprocess
from functools import cache
from pathlib import Path

import torch

from zsar.outputs import writable_file, write_json
from zsar.paths import data_path


def provenance(model: torch.nn.Module) -> dict[str, str]:
    """What a measured number must carry: the model's digest, device, versions, and the commit of the code.

    ``model`` is anything with parameters, a ``digest`` and a ``name`` (``zsar.clip.Clip``).
    """
    return {"model": f"{model.name} ({model.digest[:12]})", **machine(device_class(model))}


def machine(device: str) -> dict[str, str]:
    """The part of ``provenance`` that any measurement on ``device`` (``cpu``, ``cuda``) has: device, torch, commit."""
    return {"device": torch.cuda.get_device_name() if device == "cuda" else f"{device}, {platform.machine()}",
            "torch": torch.__version__, "commit": commit()}


def device_class(model: torch.nn.Module) -> str:
    """"cpu" or "cuda": results of one class agree closely, of two only within a tolerance."""
    return next(model.parameters()).device.type


@cache
def commit(folder: Path | None = None) -> str:
    """Short commit of the checkout that this package runs from, "+" behind it if files changed since.

    Outside a git checkout, as in an installed wheel, what ``$ZSAR_COMMIT`` says, else "none".
    """
    git = ["git", "-C", str(folder or Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no", "--", ":/zsar", ":/data"],
                                 capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("ZSAR_COMMIT") or "none"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def check(key: str, value: float, tolerance: float, *, model: torch.nn.Module, profile: str) -> str:
    """Hold a measured headline against ``data/expected/<profile>.json`` and say in one sentence what came out.

    Expectations are kept by model digest and device class (``{digest: {device: {key: value}}}``), because a number
    measured with other weights is another number. Where none is stored, nothing is compared and the sentence says so.
    With ``ZSAR_STORE_EXPECTED=1`` in the environment the value is stored as the new expectation instead.

    Raises AssertionError when the value is further than ``tolerance`` from the stored one.
    """
    file, device = data_path("expected", f"{profile}.json"), device_class(model)
    stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if os.environ.get("ZSAR_STORE_EXPECTED") == "1":
        stored.setdefault(model.digest, {}).setdefault(device, {})[key] = round(float(value), 4)
        write_json(writable_file(file), stored)
    expected = stored.get(model.digest, {}).get(device, {}).get(key)
    if expected is None:
        return (f"{key}: {value:.2f}; nothing was compared, for no expectation is stored for {model.name} "
                f"{model.digest[:12]} on {device}")
    if not abs(value - expected) <= tolerance:  # also true of NaN
        raise AssertionError(f"{key}: measured {value:.2f}, expected {expected:.2f} +- {tolerance:g} for {model.name} "
                             f"{model.digest[:12]} on {device}")
    return f"{key}: {value:.2f}, as expected ({expected:.2f} +- {tolerance:g})"
