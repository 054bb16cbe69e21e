"""Batches for a device: decoded in worker processes while it computes, bytes until they are on the device."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zsar import distributed
from zsar.datasets.base import ImageDataset
from zsar.errors import UnreadableImageError

MOST_WORKERS = 8  # by default; more is asked for


@dataclass(frozen=True)
class Batch:
    """Images float32 [n, 3, H, W] in [0, 1] and labels int64 [n] on the device, and their rows of the dataset [n].

    ``unreadable``: row -> what is wrong with the image; these are not among the n.
    """

    rows: Tensor
    images: Tensor
    labels: Tensor
    unreadable: dict[int, str]


class _Bytes(Dataset):
    """What a worker process does: a batch of rows to uint8 images, and what of it could not be read."""

    def __init__(self, dataset: ImageDataset):
        self.dataset = dataset

    def __getitems__(self, rows: Sequence[int]) -> tuple[Tensor, Tensor, dict[int, str]]:
        rows, unreadable = np.array([int(row) for row in rows]), {}
        try:
            images = self.dataset.read(rows)
        except UnreadableImageError:
            images, rows, unreadable = self._one_by_one(rows)
        return torch.from_numpy(images), torch.from_numpy(rows), unreadable

    def _one_by_one(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
        images, unreadable = [], {}
        for row in rows.tolist():
            try:
                images.append(self.dataset.read(np.array([row])))
            except UnreadableImageError as error:
                unreadable[row] = str(error)
        kept = np.array([row for row in rows.tolist() if row not in unreadable], np.int64)
        return np.concatenate(images) if images else np.empty((0, 3, 1, 1), np.uint8), kept, unreadable


def batches(dataset: ImageDataset, rows: Iterable[Sequence[int]], device: torch.device, *,
            workers: int | None = None, strict: bool = False) -> Iterator[Batch]:
    """The images of each of ``rows``, a list of row numbers a batch, on ``device``.

    workers: processes that decode, while the device computes; by default one a core (at most ``MOST_WORKERS``) where
    images have to be decoded and the device is no CPU, which would only compete with them. 0: none. An image that
    cannot be read is left out of its batch and named there; with ``strict`` UnreadableImageError is raised.
    """
    if workers is None:
        workers = default_workers(dataset, device)
    loader = DataLoader(_Bytes(dataset), batch_sampler=rows, collate_fn=_as_it_is, num_workers=workers,
                        prefetch_factor=1 if workers else None,  # a batch may be hundreds of megabytes
                        pin_memory=device.type == "cuda")
    # A number would be turned into its reciprocal on an accelerator, and pixels differ in their last bit from a CPU's.
    white = torch.full((), 255.0, device=device)
    for images, found, unreadable in loader:
        if unreadable and strict:
            raise UnreadableImageError(next(iter(unreadable.values())))
        yield Batch(found, images.to(device, non_blocking=True).float() / white,
                    dataset.labels[found].to(device, non_blocking=True), unreadable)


def default_workers(dataset: ImageDataset, device: torch.device) -> int:
    """Processes that decode for ``device``: none for a CPU, nor for images that need no decoding.

    Ranks of one machine share its cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    own = max(1, cores // distributed.ranks_here())
    return min(own, MOST_WORKERS) if dataset.decodes and device.type != "cpu" else 0


def _as_it_is(batch: tuple) -> tuple:
    return batch
