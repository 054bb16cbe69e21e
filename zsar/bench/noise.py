"""Pictures that show nothing: what an attack or a training step costs does not depend on what they show."""

import numpy as np
import torch

from zsar.clip import TEMPLATES
from zsar.datasets import ImageDataset

WORDS = ("cat", "dog")  # which every CLIP knows


def noise(images: int, classes: int, size: int) -> ImageDataset:
    """Random pictures uint8 [images, 3, size, size], always the same, of the classes in turn.

    The classes are called cat, dog, dog cat, dog dog and so on: their numbers in two words, so that all texts
    differ.
    """

    def read(rows: np.ndarray) -> np.ndarray:
        return np.stack([np.random.RandomState(row).randint(0, 256, (3, size, size), np.uint8) for row in rows])

    names = [" ".join(WORDS[int(bit)] for bit in f"{number:b}") for number in range(classes)]
    return ImageDataset("noise", "test", names, TEMPLATES, torch.arange(images) % classes,
                        [str(i) for i in range(images)], read, verbatim=True)
