"""Measured numbers: their intervals, where they come from, and whether they are still what they were."""

import json
import math
import os
import platform
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch

from zsar.outputs import writable_file, write_json
from zsar.paths import data_path

Z95 = 1.959964  # two-sided 95 % quantile of the normal distribution


def interval(hits: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of an accuracy of ``hits`` out of ``n`` images, in percent.

    Unlike the textbook mean +- 1.96 s it stays inside 0..100 and does not shrink to a point at 0 or n hits
    (Wilson 1927, "Probable inference, the law of succession, and statistical inference").
    """
    if not 0 <= hits <= n or n == 0:
        raise ValueError(f"interval: found {hits} hits of {n} images; expected 0 <= hits <= n and n > 0")
    p, z2 = hits / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def mean_interval(hits: Sequence[int], n: Sequence[int]) -> tuple[float, float, float]:
    """Mean accuracy over tasks and its 95 % interval ``(mean, low, high)``, in percent.

    Each task weighs the same, whatever its number of images. The interval speaks of these tasks with other test
    images, not of other tasks: variances of the tasks add up, each estimated as if one more hit and one more miss
    had been seen, so that a task without a single hit does not count as known exactly.
    """
    tasks = len(n)
    mean = sum(h / m for h, m in zip(hits, n, strict=True)) / tasks
    smooth = [(h + 1) / (m + 2) for h, m in zip(hits, n, strict=True)]
    half = Z95 / tasks * math.sqrt(sum(p * (1 - p) / m for p, m in zip(smooth, n, strict=True)))
    return 100 * mean, 100 * max(0.0, mean - half), 100 * min(1.0, mean + half)


def pack_bits(correct: torch.Tensor) -> str:
    """bool [N], one an image, as hexadecimal text: four images a character, the first in the highest bit."""
    return np.packbits(correct.cpu().numpy()).tobytes().hex()


def unpack_bits(text: str, n: int) -> np.ndarray:
    """bool [n] of ``pack_bits``."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=n).astype(bool)


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

    "none" outside a git checkout, as in an installed wheel.
    """
    git = ["git", "-C", str(folder or Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no", "--", ":/zsar", ":/data"],
                                 capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "none"
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
