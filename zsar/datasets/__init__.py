"""Datasets: one function, ``load_dataset``, whatever is behind a name."""

from zsar.datasets.base import ImageDataset
from zsar.datasets.drawn import DRAWN_NAMES, load_drawn
from zsar.errors import UnknownNameError, unknown_name

__all__ = ["ImageDataset", "dataset_names", "load_dataset"]


def dataset_names() -> tuple[str, ...]:
    """Every dataset that can be loaded, in the order of the paper's table."""
    return DRAWN_NAMES


def load_dataset(name: str, split: str = "test") -> ImageDataset:
    """The split ``train`` or ``test`` of a dataset. Raises UnknownNameError for a name or split that is not there."""
    if f"Drawn{name}" in DRAWN_NAMES:
        raise UnknownNameError(f"dataset {name!r}: this version reads no real datasets yet; use its drawn counterpart, "
                               f"Drawn{name}, on the drawn profile")
    if name not in DRAWN_NAMES:
        raise unknown_name("dataset", name, DRAWN_NAMES)
    return load_drawn(name, split)
