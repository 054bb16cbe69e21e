"""Write the committed reference pictures again, after a change that is meant to alter the drawn world."""

from pathlib import Path

import numpy as np
from PIL import Image

from zsar.datasets.drawn import render
from zsar.datasets.drawn.tasks import TASKS


def reference_pictures(name: str) -> np.ndarray:
    """The first twelve test pictures of a task side by side, uint8 [H, 12 W, 3]."""
    return np.concatenate(list(render(name, "test", np.arange(12)).transpose(0, 2, 3, 1)), axis=1)


if __name__ == "__main__":
    for name in TASKS:
        Image.fromarray(reference_pictures(name)).save(Path(__file__).parent / f"{name}.png")
