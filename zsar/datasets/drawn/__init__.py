"""The drawn world: sixteen rendered classification tasks that mirror the paper's sixteen by kind.

``randomness`` numbers that depend on the picture alone; ``canvas`` painting; ``icons``, ``backgrounds``, ``pictures``,
``scenes``, ``textures``, ``instruments``, ``memes`` what is painted; ``camera`` how it is photographed; ``tasks`` the
sixteen; ``captions`` the picture-caption pairs that the drawn CLIP is pretrained on.
"""

import hashlib
import os
import tempfile
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from zsar.datasets.base import ImageDataset
from zsar.datasets.drawn.tasks import TASKS
from zsar.errors import unknown_name
from zsar.paths import cache_path

DRAWN_NAMES = tuple(TASKS)
LENGTHS = {"train": 100_000, "test": 500}
_CHUNK = 64  # pictures rendered at once: they stay in a core's own cache


def render(name: str, split: str, indices: np.ndarray, seed: int = 0) -> np.ndarray:
    """Pictures ``indices`` of a split, uint8 [n, 3, H, W]; any index is valid, so fresh pictures never run out."""
    indices = np.asarray(indices)
    task = TASKS[name]
    chunks = [task.render(split, indices[i:i + _CHUNK], seed) for i in range(0, len(indices), _CHUNK)]
    return np.concatenate(chunks) if chunks else np.empty((0, 3, task.size, task.size), np.uint8)


@cache
def _renderer_digest() -> str:
    """A digest of the renderer's own source: a cached split is used only by the code that drew it."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.*")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


@cache
def _cached_split(name: str, split: str) -> np.ndarray:
    """The whole test split, rendered once a machine; written to a neighbour and renamed, so no half file is read."""
    path = cache_path("drawn", _renderer_digest(), f"{name}-{split}.npy")
    if path.exists():
        return np.load(path, mmap_mode="r")
    images = render(name, split, np.arange(LENGTHS[split]))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npy", delete=False) as file:
            np.save(file, images)
        os.replace(file.name, path)
    except OSError:
        pass  # a cache that cannot be written costs time, nothing else
    return images


def _read(name: str, split: str, rows: np.ndarray) -> np.ndarray:
    return np.array(_cached_split(name, split)[rows]) if split == "test" else render(name, split, rows)


def load_drawn(name: str, split: str) -> ImageDataset:
    """A split of a drawn task: 500 test pictures (cached), 100,000 training pictures (rendered as they are read)."""
    if split not in LENGTHS:
        raise unknown_name("split", split, LENGTHS)
    task, n = TASKS[name], LENGTHS[split]

    labels = torch.arange(n) % len(task.classnames)
    return ImageDataset(name, split, task.classnames, task.templates, labels, [f"{split}-{i:05d}" for i in range(n)],
                        partial(_read, name, split), layout="drawn")
