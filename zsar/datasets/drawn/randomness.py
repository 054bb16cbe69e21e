"""Random numbers as a pure function of (picture, draw), so that a picture never depends on its neighbours.

NumPy promises neither the same numbers from one version of its generators to the next nor independence of the batch.
Here every picture has a 64-bit key, and draw number i of a picture is SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) of
key + i * golden ratio: integer arithmetic, the same on every machine.
"""

import math
import zlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(z: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: uint64 in, well-mixed uint64 out."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _label_bits(label: str) -> np.uint64:
    return np.uint64(zlib.crc32(label.encode()))


class Stream:
    """One stream of random numbers a picture, n pictures side by side; every draw has n as its first dimension."""

    def __init__(self, keys: np.ndarray):
        self.keys = keys
        self.drawn = 0

    @classmethod
    def of(cls, label: str, seed: int, indices: np.ndarray) -> "Stream":
        """Streams of the pictures ``indices`` of the collection ``label`` under ``seed``."""
        root = mix(np.array([_label_bits(label)]) + np.uint64(seed) * _GOLDEN)
        return cls(mix(root + mix(np.asarray(indices).astype(np.uint64) * _GOLDEN)))

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: np.ndarray) -> "Stream":
        """The streams of some of the pictures, at their beginning: use on a fork that nothing was drawn from."""
        return Stream(self.keys[index])

    def fork(self, label: str) -> "Stream":
        """An independent stream for one purpose; what is drawn from it leaves this one as it is."""
        return Stream(mix(self.keys ^ mix(np.array([_label_bits(label)]))))

    def bits(self, *shape: int) -> np.ndarray:
        count = math.prod(shape)
        steps = np.arange(self.drawn + 1, self.drawn + count + 1, dtype=np.uint64) * _GOLDEN
        self.drawn += count
        return mix(self.keys[:, None] + steps).reshape(len(self), *shape)

    def uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        """float32 [n, *shape] in [low, high)."""
        unit = (self.bits(*shape) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
        return np.float32(low) + unit * np.float32(high - low)

    def normal(self, sd: float, *shape: int) -> np.ndarray:
        """float32 [n, *shape], close to normal: the sum of four 16-bit uniforms, exact on every machine."""
        parts = self.bits(*shape)[..., None].view(np.uint16).astype(np.float32).sum(-1)
        return (parts * np.float32(2.0**-16) - np.float32(2)) * np.float32(sd * math.sqrt(3))

    def integers(self, high: int) -> np.ndarray:
        """int64 [n] in [0, high)."""
        return (self.bits() % np.uint64(high)).astype(np.int64)

    def choice(self, options: list | tuple, weights: tuple | None = None) -> np.ndarray:
        """object [n]: one of ``options`` a picture, all equally likely or by ``weights``."""
        if weights is None:
            index = self.integers(len(options))
        else:
            edges = np.cumsum(np.asarray(weights, np.float64) / np.sum(weights))[:-1]
            index = np.searchsorted(edges, self.uniform(0, 1), side="right")
        return np.array(options, dtype=object)[index]

    def chance(self, probability: float) -> np.ndarray:
        """bool [n]."""
        return self.uniform(0, 1) < np.float32(probability)
