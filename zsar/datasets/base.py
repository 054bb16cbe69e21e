"""What every dataset of this package gives: float images in [0, 1] with labels, names, templates and stable ids."""

from collections.abc import Callable, Sequence

import numpy as np
import torch


class ImageDataset(torch.utils.data.Dataset):
    """A labelled split. Item i is (float32 [3, H, W] in [0, 1], int label); all images of a batch share H and W.

    read: row numbers int64 [n] -> uint8 [n, 3, H, W].
    """

    def __init__(self, name: str, split: str, classnames: Sequence[str], templates: Sequence[str],
                 labels: torch.Tensor, ids: Sequence[str], read: Callable[[np.ndarray], np.ndarray]):
        self.name, self.split = name, split
        self.classnames, self.templates = list(classnames), list(templates)
        self.labels, self.ids = labels, list(ids)
        self._read = read

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} {self.split} has {len(self)} images, there is none at {index}")
        index %= len(self)
        return self._float(np.array([index]))[0], int(self.labels[index])

    def __getitems__(self, indices: list[int]) -> list[tuple[torch.Tensor, int]]:
        """A batch at once: what torch's DataLoader asks for where it can, and rendering or decoding is cheaper so."""
        rows = np.array(indices)
        return list(zip(self._float(rows), self.labels[torch.from_numpy(rows)].tolist(), strict=True))

    def _float(self, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self._read(rows)).float() / 255

    def stack(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All images float32 [N, 3, H, W] and labels int64 [N] at once."""
        return self._float(np.arange(len(self))), self.labels.clone()

    def subset(self, n: int, seed: int = 0) -> "ImageDataset":
        """n images by a seeded permutation (all of them where n exceeds the split); their ids say which."""
        return self.select(np.random.RandomState(seed).permutation(len(self))[:n])  # its stream is frozen for good

    def hold_out(self, n: int, seed: int = 0) -> tuple["ImageDataset", "ImageDataset"]:
        """The split without n images, by a seeded permutation, and those n."""
        rows = np.random.RandomState(seed).permutation(len(self))
        return self.select(np.sort(rows[n:])), self.select(rows[:n])

    def select(self, rows: np.ndarray) -> "ImageDataset":
        """The images of these rows, int64 [n], in this order."""
        return ImageDataset(self.name, self.split, self.classnames, self.templates, self.labels[torch.from_numpy(rows)],
                            [self.ids[row] for row in rows], lambda index: self._read(rows[index]))

    def first_classes(self, k: int) -> "ImageDataset":
        """The images of the first k classes, with their names only."""
        part = self.select(np.flatnonzero((self.labels < k).numpy()))
        part.classnames = part.classnames[:k]
        return part

    def in_memory(self) -> "ImageDataset":
        """The same images, read once: for those that are drawn or decoded anew whenever they are read."""
        images = self._read(np.arange(len(self)))
        return ImageDataset(self.name, self.split, self.classnames, self.templates, self.labels, self.ids,
                            lambda index: images[index])
