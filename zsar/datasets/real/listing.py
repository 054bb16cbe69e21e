"""What the readers of all layouts share: the listing they return, and one way to say what is wrong with files."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zsar.datasets.archives import is_archive
from zsar.datasets.real.images import Encoded
from zsar.errors import DatasetError, MissingDatasetError


@dataclass(frozen=True)
class Listing:
    """A split as its files have it, nothing decoded yet: ids, labels int64 [N] in the order of ``Manifest.annotated``,
    and the encoded images. Sorted by what ``ids`` say, whatever the order on disk.

    ids are stable and readable: the path below the dataset's folder with slashes, and the number in an array file.
    ``encoded`` can be sent to worker processes: it holds no open file.
    """

    ids: list[str]
    labels: np.ndarray
    encoded: Sequence[Encoded]


#: ``reader(root, split, annotated) -> Listing``; split is ``train`` or ``test``, the protocol's evaluation split.
LayoutReader = Callable[[Path, str, tuple[str, ...]], Listing]


class Files(Sequence[Path]):
    """Images that are files below ``folder``. Their paths are made when asked for: a million of them stay cheap."""

    def __init__(self, folder: Path, ids: list[str]):
        self.folder, self.ids = folder, ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> Path:
        return self.folder / self.ids[row]


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few names in words, for a message of one line."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def mend(name: str, split: str = "test") -> str:
    """How every message about missing files ends; shards to train on are fetched only when asked for."""
    asked = " --split train" * (split == "train")
    return f"'python -m zsar data verify {name}' shows what is there, 'data fetch {name}{asked}' gets the rest"


def dataset_folder(name: str, root: Path, below: str) -> Path:
    """``root/below``, the folder of the dataset ``name``.

    Raises MissingDatasetError where there is none, or nothing in it but what a download leaves before it unpacks, and
    DatasetError where it must not be read.
    """
    root = Path(root).expanduser()
    with looking(name, root / below):
        if not root.is_dir():
            raise MissingDatasetError(f"{name}: there is no data folder {root}: expected the folder that holds {below}/"
                                      f"; name another, or fill it with 'python -m zsar data fetch {name}'")
        if not (root / below).is_dir():
            raise MissingDatasetError(f"{name}: there is no {below}/ in {root}, which holds "
                                      f"{some(sorted(path.name for path in root.iterdir())) or 'nothing'}; "
                                      f"{mend(name)}")
        if all(_is_left_by_download(path.name) for path in (root / below).iterdir()):
            raise MissingDatasetError(f"{name}: there is no {below}/ in {root} but what a download that did not end "
                                      f"has left; {mend(name)}")
    return root / below


def _is_left_by_download(name: str) -> bool:
    """Whether a file in a dataset's folder is none of the dataset: a lock, a part, or an archive not unpacked."""
    return name.startswith(".") or name.endswith((".part", ".part.json", ".mismatch")) or is_archive(name)


@contextmanager
def looking(name: str, folder: Path) -> Iterator[None]:
    """Turns what the system refuses, such as reading a folder of another user, into a DatasetError."""
    try:
        yield
    except OSError as error:
        raise DatasetError(f"{name}: cannot look into {error.filename or folder} ({error.strerror}): expected what may "
                           "be read; change its permissions") from error


def walk(name: str, top: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """``os.walk``, links followed, which does not pass over a folder that must not be read. Raises DatasetError."""
    with looking(name, top):
        yield from os.walk(top, followlinks=True, onerror=_raise)


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # of what is missing there is more to say than that
        raise error


@contextmanager
def reading(name: str, path: Path, expected: str) -> Iterator[None]:
    """Turns whatever a parser raises on a missing or broken file into a DatasetError; ``expected`` is what it holds."""
    try:
        if not path.is_file():
            raise DatasetError(f"{name}: the file {path} is missing: expected {expected}; {mend(name)}")
        yield
    except DatasetError:
        raise
    except Exception as error:  # pickle, HDF5, MATLAB and JSON readers raise errors of many kinds on broken files
        found = " ".join(f"{type(error).__name__} {error}".split())[:150]
        raise DatasetError(f"{name}: cannot read {path} ({found}): expected {expected}; {mend(name)}") from error


def to_labels(name: str, where: Path, found: Sequence[str], annotated: tuple[str, ...]) -> np.ndarray:
    """Class names of the dataset's files as labels int64 [N]. Raises DatasetError for a name outside ``annotated``."""
    label = {spelled: number for number, spelled in enumerate(annotated)}
    if strangers := sorted(set(found) - label.keys()):
        raise DatasetError(f"{name}: {where} names the class {some(map(repr, strangers))}: expected one of "
                           f"{len(annotated)} ({some(annotated)}); is it another dataset or release? {mend(name)}")
    return np.array([label[spelled] for spelled in found], np.int64)


def relabel(name: str, where: Path, numbers: Sequence[int], order: np.ndarray) -> np.ndarray:
    """Labels int64 [N] of ``numbers``, which count a list of classes from 0; ``order`` says which label each is.

    Raises DatasetError for a number outside the list.
    """
    numbers = np.asarray(numbers, np.int64)
    outside = numbers[(numbers < 0) | (numbers >= len(order))]
    if outside.size:
        raise DatasetError(f"{name}: {where} holds labels outside its {len(order)} classes ({outside.size}, the first "
                           f"is {outside[0]}): expected 0 to {len(order) - 1}, counted from 0; {mend(name)}")
    return order[numbers]


def check_complete(name: str, where: Path, labels: np.ndarray, annotated: tuple[str, ...]) -> None:
    """Raises DatasetError where a class of ``annotated`` has no image: half-extracted, or another dataset."""
    empty = sorted(set(range(len(annotated))) - set(labels.tolist()))
    if empty:
        raise DatasetError(f"{name}: {where} has no image of {len(empty)} of {len(annotated)} classes "
                           f"({some(annotated[number] for number in empty)}): only half extracted, or another dataset; "
                           f"{mend(name)}")


def list_files(name: str, folder: Path, where: Path, found: Sequence[tuple[str, str]],
               annotated: tuple[str, ...]) -> Listing:
    """The listing of ``found``, pairs of a path below ``folder`` and a class name; ``where`` is named in errors."""
    found = sorted(found)
    labels = to_labels(name, where, [spelled for _, spelled in found], annotated)
    check_complete(name, where, labels, annotated)
    ids = [path for path, _ in found]
    return Listing(ids, labels, Files(folder, ids))
