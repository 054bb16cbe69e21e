"""Data that tests make up: pictures with a colour a class, which a tiny CLIP learns to tell apart in a few steps."""

from collections.abc import Sequence

import numpy as np
import torch

from zsar.datasets import ImageDataset

NAMES = ("cat", "dog", "car", "frog")  # words of the tiny CLIP of conftest.py


def made_up(n: int = 60, names: Sequence[str] = NAMES, size: int = 16, split: str = "train") -> ImageDataset:
    """n pictures [3, size, size], one class after the other, always the same."""
    random = np.random.RandomState(n)
    labels = np.arange(n) % max(1, len(names))
    colours = np.random.RandomState(0).randint(40, 215, (len(names), 3, 1, 1))
    pixels = (colours[labels] + random.randint(-40, 40, (n, 3, size, size))).astype(np.uint8)
    return ImageDataset("made-up", split, names, ["a photo of a {}"], torch.from_numpy(labels),
                        [f"{split}-{i}" for i in range(n)], lambda rows: pixels[rows])
