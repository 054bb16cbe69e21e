"""Datasets that keep many images in one array: CIFAR10, CIFAR100, STL10 and PCAM."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from zsar.datasets.real.listing import Listing, check_complete, dataset_folder, mend, reading, relabel, to_labels
from zsar.errors import DatasetError

#: All that the pickle of a NumPy array names, by NumPy 1 and 2.
ARRAYS_ONLY = {("numpy", "ndarray"), ("numpy", "dtype"), ("numpy.core.multiarray", "_reconstruct"),
               ("numpy._core.multiarray", "_reconstruct")}
STL10_BYTES = 3 * 96 * 96


class ArrayUnpickler(pickle.Unpickler):
    """Reads lists, dictionaries, texts and NumPy arrays, and calls nothing else whatever the file asks for."""

    def find_class(self, module: str, name: str) -> Any:
        """Raises UnpicklingError for everything that does not rebuild an array."""
        if (module, name) not in ARRAYS_ONLY:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs; nothing was executed")
        return super().find_class(module, name)


def cifar10(root: Path, split: str, annotated: tuple[str, ...]) -> Listing:
    """``root/cifar-10-batches-py``: pickled batches, and their classes in ``batches.meta``. Raises DatasetError."""
    files = [f"data_batch_{number}" for number in range(1, 6)] if split == "train" else ["test_batch"]
    return _cifar("CIFAR10", dataset_folder("CIFAR10", root, "cifar-10-batches-py"), files, "labels",
                  "batches.meta", "label_names", annotated)


def cifar100(root: Path, split: str, annotated: tuple[str, ...]) -> Listing:
    """``root/cifar-100-python``: pickles ``train`` and ``test``, their classes in ``meta``. Raises DatasetError."""
    return _cifar("CIFAR100", dataset_folder("CIFAR100", root, "cifar-100-python"), [split], "fine_labels",
                  "meta", "fine_label_names", annotated)


def _cifar(name: str, folder: Path, files: Sequence[str], key: str, meta: str, names: str,
           annotated: tuple[str, ...]) -> Listing:
    """Images are rows of 3 x 32 x 32 bytes, the planes of colour one after the other."""
    with reading(name, folder / meta, f"a pickle with {names}"):
        order = to_labels(name, folder / meta, _unpickle(folder / meta)[names], annotated)
    ids, labels, images = [], [], []
    for file in files:
        with reading(name, folder / file, f"a pickle with data and {key}"):
            batch = _unpickle(folder / file)
            data = np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32)
            if len(data) != len(batch[key]):
                raise DatasetError(f"{name}: {folder / file} has {len(data)} images and {len(batch[key])} labels: "
                                   f"expected as many; {mend(name)}")
            labels.append(relabel(name, folder / file, batch[key], order))
        ids += _numbered(file, len(data))
        images.append(data.transpose(0, 2, 3, 1))
    check_complete(name, folder, np.concatenate(labels), annotated)
    return Listing(ids, np.concatenate(labels), np.concatenate(images))


def _unpickle(path: Path) -> dict:
    with path.open("rb") as file:
        return ArrayUnpickler(file, encoding="latin1").load()  # written by Python 2


def _numbered(file: str, count: int) -> list[str]:
    """Ids of the images in an array: their order as texts is that in the file."""
    return [f"{file}/{row:06d}" for row in range(count)]


def stl10(root: Path, split: str, annotated: tuple[str, ...]) -> Listing:
    """``root/stl10_binary/test_X.bin``, 96 x 96 x 3 bytes an image, classes from 1 in ``test_y.bin``, their names in
    ``class_names.txt``. Raises DatasetError.
    """
    folder = dataset_folder("STL10", root, "stl10_binary")
    names, path, answers = folder / "class_names.txt", folder / f"{split}_X.bin", folder / f"{split}_y.bin"
    with reading("STL10", names, "a class a line"):
        order = to_labels("STL10", names, names.read_text(encoding="utf-8").split(), annotated)
    with reading("STL10", answers, "a byte an image"):
        numbers = np.fromfile(answers, np.uint8).astype(np.int64) - 1
    with reading("STL10", path, f"{STL10_BYTES} bytes an image"):
        if path.stat().st_size != STL10_BYTES * len(numbers):
            raise DatasetError(f"STL10: {path} has {path.stat().st_size} bytes: expected {STL10_BYTES * len(numbers)} "
                               f"for the {len(numbers)} labels in {answers}; {mend('STL10')}")
    labels = relabel("STL10", answers, numbers, order)
    check_complete("STL10", answers, labels, annotated)
    return Listing(_numbered(path.name, len(labels)), labels, ColumnMajorImages(path, len(labels)))


class ColumnMajorImages(Sequence[np.ndarray]):
    """STL10's images as uint8 [96, 96, 3], each read when asked for; in the file a column of pixels is together."""

    def __init__(self, path: Path, count: int):
        self.path, self.count = path, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> np.ndarray:
        row = range(self.count)[row]
        planes = np.fromfile(self.path, np.uint8, STL10_BYTES, offset=row * STL10_BYTES)
        return planes.reshape(3, 96, 96).transpose(2, 1, 0)


def pcam(root: Path, split: str, annotated: tuple[str, ...]) -> Listing:
    """``root/pcam/camelyonpatch_level_2_split_test_x.h5`` with images uint8 [N, 96, 96, 3] and ``..._y.h5``.

    Raises DatasetError, also where h5py is not installed.
    """
    folder, h5py = dataset_folder("PCAM", root, "pcam"), _h5py()  # where nothing is there, nothing is to be installed
    path, answers = (folder / f"camelyonpatch_level_2_split_{split}_{part}.h5" for part in "xy")
    with reading("PCAM", answers, "the HDF5 array y"), h5py.File(answers, "r") as file:
        numbers = file["y"][()].ravel()
    with reading("PCAM", path, "the HDF5 array x"), h5py.File(path, "r") as file:
        shape = file["x"].shape
    if shape != (len(numbers), 96, 96, 3):
        raise DatasetError(f"PCAM: {path} holds an array {shape}: expected {(len(numbers), 96, 96, 3)} for the labels "
                           f"in {answers.name}; {mend('PCAM')}")
    labels = to_labels("PCAM", answers, [str(number) for number in numbers.tolist()], annotated)
    check_complete("PCAM", answers, labels, annotated)
    return Listing(_numbered(path.name, len(labels)), labels, H5Images(path, "x", len(labels)))


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError as error:
        raise DatasetError("PCAM is kept in HDF5 files, which need a library that is not installed: "
                           "pip install h5py") from error
    return h5py


class H5Images(Sequence[np.ndarray]):
    """Images uint8 [H, W, 3] of an HDF5 array. The file is opened for each: processes must not share an open one."""

    def __init__(self, path: Path, key: str, count: int):
        self.path, self.key, self.count = path, key, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> np.ndarray:
        with _h5py().File(self.path, "r") as file:
            return file[self.key][range(self.count)[row]]
