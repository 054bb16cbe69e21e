"""How sure a measured accuracy is, alone, as a mean over tasks, and beside another on the same images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import special  # scipy.stats takes half a second to import

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


@dataclass(frozen=True)
class Estimate:
    """A mean or a difference of means in percent, its 95 % interval, and on how much it rests."""

    value: float
    low: float
    high: float
    seeds: int
    images: int

    def __str__(self) -> str:
        return f"{self.value:.1f} ({self.low:.1f} to {self.high:.1f})"

    @property
    def bounded(self) -> "Estimate":
        """The same with an interval that ends at 0 and 100, as that of an accuracy does."""
        return replace(self, low=max(0.0, self.low), high=min(100.0, self.high))


def estimate(tasks: Sequence[np.ndarray]) -> Estimate | None:
    """Mean in percent of values [seeds, images] of each of ``tasks`` with its 95 % interval; None where there are none.

    Each task has the same weight. The interval holds two things that could have fallen otherwise: the test images
    (variances of the tasks add up) and the seed (Student's t over the seeds' means), added in quadrature; with one seed
    it speaks of test images alone. A task's variance is taken as if two more images had been seen, half a hit above its
    mean and half below: a task without a single hit is not known exactly.
    """
    if not len(tasks) or not all(values.size for values in tasks):
        return None
    seeds = len(tasks[0])
    variance = sum((values.shape[1] * values.mean(0).var() + .5) / (values.shape[1] + 2) / values.shape[1]
                   for values in tasks) / len(tasks)**2
    half = (Z95 * math.sqrt(variance))**2
    of_seed = np.mean([values.mean(1) for values in tasks], axis=0)
    if seeds > 1:
        half += (special.stdtrit(seeds - 1, .975) * of_seed.std(ddof=1) / math.sqrt(seeds))**2
    half, mean = 100 * math.sqrt(half), 100 * float(of_seed.mean())
    return Estimate(mean, mean - half, mean + half, seeds, sum(values.shape[1] for values in tasks))


@dataclass(frozen=True)
class Paired:
    """Two models on the same images: the difference of their accuracies in points with its 95 % interval.

    ``only_a`` and ``only_b`` count the images that one of them alone has right; ``p`` is that of McNemar's exact test.
    """

    difference: float
    low: float
    high: float
    only_a: int
    only_b: int
    images: int
    p: float


def paired(a: np.ndarray, b: np.ndarray) -> Paired:
    """How far ``a`` is ahead of ``b``, bool [N] each, whether an image was right, the same images in the same order.

    McNemar (1947): only images on which the two differ tell them apart, and were they equally good these would fall to
    either side like a coin. The interval is that of a difference of paired proportions after Agresti and Min (2005),
    who add half an image to each of the four counts. Raises ValueError for arrays of different length, or none.
    """
    n = len(a)
    if n == 0 or n != len(b):
        raise ValueError(f"paired: found {n} and {len(b)} images; expected the same ones, and at least one")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = min(1.0, 2 * special.bdtr(min(only_a, only_b), only_a + only_b, .5))  # both tails: a coin has equal ones
    first, second, m = only_a + .5, only_b + .5, n + 2
    centre = (first - second) / m
    half = Z95 * math.sqrt(first + second - (first - second)**2 / m) / m
    return Paired(100 * (only_a - only_b) / n, 100 * (centre - half), 100 * (centre + half), only_a, only_b, n,
                  float(p))


def holm(p: Sequence[float]) -> list[float]:
    """P-values of several tests after Holm (1979), in the order given: below 5 % those that stand when asked together.

    The chance that any test of them all errs is held, whatever depends on what. The smallest of m is multiplied by m,
    the next by m - 1, and so on; none becomes smaller than one before it.
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))))
    return adjusted.tolist()


def pack_bits(correct: torch.Tensor | np.ndarray) -> str:
    """bool [N], one an image, as hexadecimal text: four images a character, the first in the highest bit."""
    return np.packbits(np.asarray(correct.cpu() if isinstance(correct, torch.Tensor) else correct)).tobytes().hex()


def unpack_bits(text: str, n: int) -> np.ndarray:
    """bool [n] of ``pack_bits``."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=n).astype(bool)
