"""Datasets: one function, ``load_dataset``, whatever is behind a name."""

from pathlib import Path

from zsar.datasets.base import ImageDataset
from zsar.datasets.drawn import DRAWN_NAMES, load_drawn
from zsar.datasets.loading import Batch, batches
from zsar.datasets.manifest import PROTOCOLS
from zsar.datasets.own import is_own, load_own, unknown_dataset
from zsar.datasets.sixteen import data_root, load_sixteen
from zsar.errors import unknown_name
from zsar.profiles import SIXTEEN

__all__ = ["PROTOCOLS", "SPLITS", "Batch", "ImageDataset", "batches", "data_root", "dataset_names", "is_own",
           "load_dataset", "unknown_dataset"]

SPLITS = ("train", "test")


def dataset_names() -> tuple[str, ...]:
    """Every dataset that has a name, drawn and real, each in the order of the paper's table."""
    return (*DRAWN_NAMES, *SIXTEEN)


def load_dataset(name: str, split: str = "test", root: str | Path | None = None, protocol: str = "tecoa16",
                 *, partial: bool = False) -> ImageDataset:
    """A split of a dataset: of a drawn one, of one of the paper's sixteen, or of one's own images.

    Args:
        name: such as ``"DrawnCIFAR10"`` or ``"CIFAR10"``; or a place, which has a slash or ends in ``.csv``
            (``"./photos"``, see ``zsar.datasets.own``).
        split: ``"test"``, the protocol's evaluation split, or ``"train"``.
        root: the folder of the real datasets, as torchvision takes it, and of packed copies; by default
            ``data_root()``.
        protocol: ``"tecoa16"``, the paper's class names and template, or ``"cb"``, those of CLIP_benchmark.
        partial: take what is there of a real dataset, instead of raising where images are missing.

    Its ``layout`` says what was read: ids, and so subsets, differ between a dataset's own files and its shards.

    Raises UnknownNameError for a name, split or protocol that is not there, and DatasetError for files that are missing
    or do not fit.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    root = data_root() if root is None else Path(root).expanduser()
    if is_own(name):
        return load_own(Path(name).expanduser(), split, root)
    if name in DRAWN_NAMES:
        return load_drawn(name, split)
    if name not in SIXTEEN:
        raise unknown_dataset(name, dataset_names())
    return load_sixteen(name, split, root, protocol, partial)
