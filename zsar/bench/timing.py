"""Seconds and memory of work on a device, operation by operation too, and the rate of one large matrix product."""

import ctypes
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from zsar.clip import Clip

T = TypeVar("T")
STATUS, RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # Linux (man 5 proc)


class First(NamedTuple, Generic[T]):
    """A first call: what it returned, its seconds (cold), and the bytes that it held at most beyond those before."""

    result: T
    seconds: float
    memory_bytes: int | None


class Flops(NamedTuple):
    """Floating-point operations of a forward pass: of an image through our tower and open_clip's, and of a prompt."""

    ours: int
    image: int
    prompt: int


class Timing(NamedTuple):
    """Seconds of repeats of the same work: their median, the fastest and the slowest."""

    seconds: float
    spread: list[float]
    repeats: int


def wait(device: torch.device) -> None:
    """Return when the device has done all that it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize()


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, the device idle before and after, less those that ``work.spared`` says do not count."""
    return _timed(work, device)[1]


def first_call(work: Callable[[], T], device: torch.device) -> First[T]:
    """Call ``work``, looking at the clock and at the memory."""
    before = _start_watching(device)
    result, taken = _timed(work, device)
    peak = _peak(device)
    return First(result, taken, None if before is None or peak is None else max(0, peak - before))


def _timed(work: Callable[[], T], device: torch.device) -> tuple[T, float]:
    wait(device)
    begin = time.perf_counter()
    result = work()
    wait(device)
    return result, time.perf_counter() - begin - getattr(work, "spared", 0.0)


def in_turn(works: Sequence[tuple[Callable[[], object], int]], device: torch.device) -> list[Timing | None]:
    """Time each of several works as often as it says, one after the other in turn: what slows the machine slows all.

    None of a work that is not to be run.
    """
    found: list[list[float]] = [[] for _ in works]
    for number in range(max(repeats for _, repeats in works)):
        for (work, repeats), own in zip(works, found, strict=True):
            if number < repeats:
                own.append(seconds(work, device))
    return [Timing(statistics.median(own), [min(own), max(own)], len(own)) if own else None for own in found]


def operation_seconds(work: Callable[[], object]) -> dict[str, float]:
    """Seconds that each of torch's operations took by itself on the processor in one call of ``work``.

    The profiler's notes on its own doings, which it writes past Python to the standard error, are not shown.
    """
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            work()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
    return {event.key.removeprefix("aten::"): event.self_cpu_time_total / 1e6 for event in profiler.key_averages()}


def matrix_rate(device: torch.device, dtype: torch.dtype = torch.float32, side: int | None = None) -> float:
    """Floating-point operations a second of a product of two square matrices: the peak that a model can hope for.

    The best of five runs of several products each; float32 at torch's precision as it is set.
    """
    side, products = side or (2048 if device.type == "cpu" else 8192), 1 if device.type == "cpu" else 10
    a = torch.randn(side, side, device=device, dtype=dtype)

    def multiply() -> None:
        for _ in range(products):
            a @ a

    multiply()
    return 2 * side**3 * products / min(seconds(multiply, device) for _ in range(5))


def image_flops(clip: Clip, size: int) -> int:
    """Floating-point operations of one image's way through the image tower, counted by torch.

    On a CPU torch leaves out the products inside its own attention, one in a hundred for ViT-B/32.
    """
    image = torch.rand(1, 3, size, size, device=clip.device).requires_grad_()  # else torch fuses what it does not count
    return _counted(lambda: clip.features(image))


def prompt_flops(clip: Clip) -> int:
    """The same of one prompt's way through the text tower."""
    tokens = clip.tokenizer(["cat"]).to(clip.device)
    return _counted(lambda: clip.model.encode_text(tokens))


def _counted(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def _start_watching(device: torch.device) -> int | None:
    """The bytes that are held now, from which on the peak is looked for; None where the system does not say."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    if device.type != "cpu" or not RESET_PEAK.exists():
        return None
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc keeps what is freed, and hands it out again
        trim(0)
    try:
        RESET_PEAK.write_text("5")
    except OSError:
        return None
    return _resident("VmRSS")


def _peak(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM")


def _resident(name: str) -> int | None:
    """A line of ``/proc/self/status``, in bytes."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)
