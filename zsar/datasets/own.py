"""Images of one's own: a folder of class folders, or a CSV file of paths and labels."""

import hashlib
import json
import os
import shlex
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas
import torch

from zsar.datasets.base import ImageDataset
from zsar.datasets.packed import packed_folder, read_packed
from zsar.datasets.real.images import Decoder
from zsar.datasets.real.listing import looking
from zsar.errors import DatasetError, UnknownNameError, unknown_name

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
TEMPLATES, TRANSFORM = ("This is a photo of a {}",), "crop"


def is_own(name: str) -> bool:
    """Whether ``name`` means a place rather than a dataset of this package: it has a slash or ends in .csv."""
    return "/" in name or "\\" in name or name.lower().endswith(".csv")


def unknown_dataset(name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for ``name`` not being among ``known``, which says how a place of that name is written."""
    if os.path.exists(name):
        return UnknownNameError(f"unknown dataset {name!r}: expected ./{name} if that folder or file is meant")
    return unknown_name("dataset", name, known)


def load_own(path: Path, split: str, root: Path | None = None) -> ImageDataset:
    """The images at ``path``, cropped as those of the sixteen are; its class names are the texts.

    A folder has a folder a class; one that has ``train`` and ``test`` folders has splits. A CSV file has the columns
    ``path`` (from the file's own folder) and ``label`` (the class name), and ``split`` where there are several. Without
    splits all images are of ``test``. root: where a packed copy is looked for (None: nowhere); one that is of other
    files than those at ``path`` is not used, and a warning says so. Raises DatasetError.
    """
    found, classnames = _find(path, split)
    labels = torch.tensor([classnames.index(label) for label in found["label"]])
    ids = found["id"].tolist()
    read = Decoder([Path(file) for file in found["file"]], ids, TRANSFORM)
    if root and (packed := read_packed(folder := own_packed_folder(root, path, split))):
        if packed[0].get("digest") == _digest(found, classnames):
            read = packed[1]
        else:
            again = shlex.join(["data", "pack", str(path.resolve()), "--split", split, "--root", str(root)])
            warnings.warn(f"the packed copy {folder} is stale, its files or classes have changed, and is not used: "
                          f"pack again with python -m zsar {again}", stacklevel=3)
    return ImageDataset(str(path), split, [" ".join(name.replace("_", " ").split()) for name in classnames], TEMPLATES,
                        labels, ids, read, layout="own")


def own_packed_folder(root: Path, path: Path, split: str) -> Path:
    """Where the packed copy of a split of the images at ``path`` is, whatever way of writing that place is used."""
    return packed_folder(root, f"own-{path.resolve().stem}-{place_digest(path)}", split)


def place_digest(path: Path) -> str:
    """12 hex digits that tell ``path`` from other places of its name, whatever way of writing it is used."""
    return hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:12]


def own_packed_as(path: Path, split: str) -> dict:
    """What a packed copy of the images at ``path`` has to say of itself, so that it is used. Raises DatasetError."""
    return {"digest": _digest(*_find(path, split))}


def _digest(found: pandas.DataFrame, classnames: list[str]) -> str:
    """What tells these files from others and from later ones, without reading them: their sizes and times do."""
    told = hashlib.sha256(json.dumps([classnames, TRANSFORM]).encode())
    for row in found.itertuples():
        try:
            about = os.stat(row.file)
            stamp = [about.st_size, about.st_mtime_ns]
        except OSError:  # it is named when it is to be read
            stamp = None
        told.update(json.dumps([row.id, stamp, row.label]).encode())
    return told.hexdigest()


def _find(path: Path, split: str) -> tuple[pandas.DataFrame, list[str]]:
    """Rows of id, file and label of a split, sorted by their ids, and the classes of all splits."""
    with looking(str(path), path):
        if not path.exists():
            raise DatasetError(f"{path} does not exist: expected a folder of class folders, or a CSV file of paths and "
                               "labels")
        found, classnames = _from_csv(path, split) if path.is_file() else _from_folder(path, split)
    found = found.sort_values("id", kind="stable")
    if len(classnames) < 2:
        raise DatasetError(f"{path}: found images of {len(classnames)} class ({', '.join(classnames) or 'none'}), "
                           "expected at least two classes")
    return found, classnames


def _from_folder(path: Path, split: str) -> tuple[pandas.DataFrame, list[str]]:
    """Rows of id, file and label of a split, and the classes of all splits."""
    parts = [path / name for name in ("train", "test") if (path / name).is_dir()]
    if len(parts) == 2:
        path = path / split
    elif split != "test":
        raise _no_split(path, "folders train and test with a folder a class in each")
    found = {part: _images_below(part) for part in (parts if len(parts) == 2 else [path])}
    classes = {row["label"] for rows in found.values() for row in rows}
    rows = found[path]
    if not rows:
        raise DatasetError(f"{path}: found no image in its folders, expected a folder a class with files such as .jpg "
                           "or .png in it")
    if empty := {folder.name for part in found for folder in _class_folders(part)} - classes:
        warnings.warn(f"{path}: no image in {', '.join(sorted(empty))}, which is no class then", stacklevel=2)
    return pandas.DataFrame(rows), sorted(classes)


def _class_folders(path: Path) -> list[Path]:
    """The folders in ``path``; hidden ones are no classes."""
    return [folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith(".")]


def _images_below(path: Path) -> list[dict]:
    """A row of id, file and label for every image in the class folders of ``path``."""
    return [{"id": f"{folder.name}/{file.name}", "file": file, "label": folder.name}
            for folder in _class_folders(path) for file in folder.iterdir() if file.suffix.lower() in SUFFIXES]


def _from_csv(path: Path, split: str) -> tuple[pandas.DataFrame, list[str]]:
    """Rows of id, file and label of a split, and the classes of all splits."""
    try:
        table = pandas.read_csv(path, dtype=str, skipinitialspace=True, keep_default_na=False, na_values=[""])
    except UnicodeDecodeError as error:
        raise DatasetError(f"cannot read {path} as CSV: its text is not UTF-8; save it as UTF-8") from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read {path} as CSV: {error}") from error
    if missing := {"path", "label"} - set(table.columns):
        for mark, called in ((";", "';'"), ("\t", "tabs")):
            if mark in table.columns[0]:
                raise DatasetError(f"{path}: expected columns separated by commas, found {called}")
        raise DatasetError(f"{path}: found the columns {', '.join(table.columns)}, expected path and label; "
                           f"missing: {' and '.join(sorted(missing))}")
    classnames = sorted(set(table["label"].dropna()))
    if "split" in table.columns:
        table = table[table["split"] == split]
        if table.empty:
            raise DatasetError(f"{path}: no row is of the split {split}")
    elif split != "test":
        raise _no_split(path, "a column split with the values train and test")
    if len(empty := np.flatnonzero(table[["path", "label"]].isna().any(axis=1))):
        raise DatasetError(f"{path}: rows without a path or a label: {len(empty)}, the first is row {empty[0] + 2}")
    files = [path.parent / name for name in table["path"]]
    if absent := [file for file in files if not file.is_file()]:
        raise DatasetError(f"{path}: {len(absent)} of {len(files)} images are not there, e.g. {absent[0]}; paths count "
                           f"from {path.parent}")
    found = pandas.DataFrame({"id": table["path"].tolist(), "file": files, "label": table["label"].tolist()})
    return found, classnames


def _no_split(path: Path, expected: str) -> DatasetError:
    return DatasetError(f"{path} has no training split, which must not be tested on: expected {expected}")
