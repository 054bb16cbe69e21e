"""What every dataset of this package gives: float images in [0, 1] with labels, names, templates and stable ids."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from zsar.errors import DatasetError

#: Row numbers int64 [n] -> uint8 [n, 3, H, W]. Raises UnreadableImageError for one that cannot be decoded.
Reader = Callable[[np.ndarray], np.ndarray]


class ImageDataset(torch.utils.data.Dataset):
    """A labelled split. Item i is (float32 [3, H, W] in [0, 1], int label); all images of a batch share H and W.

    verbatim: the class names are texts of a protocol, to be used as they stand (``zsar.clip.ZeroShotClassifier``).
    read: what reads images by their row. rows: int64 [N], which of its rows are this dataset's, in this order (None: as
    many as there are ids, from 0). A part of a dataset shares ``read`` and holds rows only, so it can be sent to worker
    processes whenever ``read`` can.
    layout: what was read: ``files`` (as the dataset is published), ``parquet`` or ``wds`` (shards of it), ``own`` or
    ``drawn``; of a packed copy, what it was packed from, ``unknown`` where it does not say. Shards do not know the
    names of the files, so ids, and with them subsets and random starts, differ between the layouts of one dataset.
    """

    def __init__(self, name: str, split: str, classnames: Sequence[str], templates: Sequence[str],
                 labels: torch.Tensor, ids: Sequence[str], read: Reader, rows: np.ndarray | None = None,
                 verbatim: bool = False, layout: str = "unknown"):
        self.name, self.split, self.verbatim, self.layout = name, split, verbatim, layout
        self.classnames, self.templates = list(classnames), list(templates)
        self.labels, self.ids = labels, list(ids)
        self._read, self._rows = read, np.arange(len(self.ids)) if rows is None else rows

    @property
    def decodes(self) -> bool:
        """Whether reading takes long enough for worker processes to pay: images are decoded from files."""
        return getattr(self._read, "decodes", False)

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

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Images of these rows, uint8 [n, 3, H, W]: a quarter of the bytes of floats, for a way to the device."""
        images = self._read(self._rows[rows])
        if images.dtype != np.uint8:
            raise DatasetError(f"{self.name}: its images are read as {images.dtype}, expected uint8 from 0 to 255")
        return images

    def _float(self, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.read(rows)).float() / 255

    def stack(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All images float32 [N, 3, H, W] and labels int64 [N] at once."""
        return self._float(np.arange(len(self))), self.labels.clone()

    def subset(self, n: int, seed: int = 0, per_class: int | None = None) -> "ImageDataset":
        """n images by a seeded permutation (all of them where n exceeds the split); their ids say which.

        per_class: at most so many of each class, those that come first in the permutation.
        """
        rows = np.random.RandomState(seed).permutation(len(self))  # its stream is frozen for good
        if per_class is not None:
            labels, kept = self.labels.numpy()[rows], np.zeros(len(rows), bool)
            for label in np.unique(labels):
                kept[np.flatnonzero(labels == label)[:per_class]] = True
            rows = rows[kept]
        return self.select(rows[:n])

    def hold_out(self, n: int, seed: int = 0) -> tuple["ImageDataset", "ImageDataset"]:
        """The split without n images, by a seeded permutation, and those n."""
        rows = np.random.RandomState(seed).permutation(len(self))
        return self.select(np.sort(rows[n:])), self.select(rows[:n])

    def select(self, rows: np.ndarray) -> "ImageDataset":
        """The images of these rows, int64 [n], in this order."""
        return self._with(self.labels[torch.from_numpy(rows)], [self.ids[row] for row in rows], self._read,
                          self._rows[rows])

    def first_classes(self, k: int) -> "ImageDataset":
        """The images of the first k classes, with their names only."""
        part = self.select(np.flatnonzero((self.labels < k).numpy()))
        part.classnames = part.classnames[:k]
        return part

    def in_memory(self) -> "ImageDataset":
        """The same images, read once: for those that are drawn or decoded anew whenever they are read."""
        return self._with(self.labels, self.ids, self.read(np.arange(len(self))).__getitem__)

    def _with(self, labels: torch.Tensor, ids: Sequence[str], read: Reader,
              rows: np.ndarray | None = None) -> "ImageDataset":
        """Other images of the same dataset."""
        return ImageDataset(self.name, self.split, self.classnames, self.templates, labels, ids, read, rows,
                            self.verbatim, self.layout)
