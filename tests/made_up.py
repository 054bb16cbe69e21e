"""What tests make up: a tiny CLIP, and pictures with a colour a class, which it learns to tell apart in a few steps."""

from collections.abc import Sequence

import numpy as np
import open_clip
import torch

from zsar.clip import Clip
from zsar.datasets import ImageDataset
from zsar.tokenizer import WordTokenizer

NAMES = ("cat", "dog", "car", "frog")  # words of the tiny CLIP
WORDS = "this is a photo of the drawing cat dog car red blue frog".split()
TINY = {"embed_dim": 16, "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2},
        "text_cfg": {"context_length": 12, "vocab_size": len(WORDS) + 3, "width": 32, "heads": 2, "layers": 1}}


def tiny() -> Clip:
    """A CLIP with random weights that runs in no time, always the same; its logit scale is 14."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(**TINY)
    return Clip(model, WordTokenizer(WORDS, 12), name="tiny")


def made_up(n: int = 60, names: Sequence[str] = NAMES, size: int = 16, split: str = "train") -> ImageDataset:
    """n pictures [3, size, size], one class after the other, always the same."""
    random = np.random.RandomState(n)
    labels = np.arange(n) % max(1, len(names))
    colours = np.random.RandomState(0).randint(40, 215, (len(names), 3, 1, 1))
    pixels = (colours[labels] + random.randint(-40, 40, (n, 3, size, size))).astype(np.uint8)
    return ImageDataset("made-up", split, names, ["a photo of a {}"], torch.from_numpy(labels),
                        [f"{split}-{i}" for i in range(n)], lambda rows: pixels[rows])
