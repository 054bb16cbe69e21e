"""A packed copy of a split: its images decoded and resized once, in one file that is mapped into memory."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from zsar.datasets.base import ImageDataset
from zsar.errors import DatasetError, OutputError

IMAGES, ABOUT = "images.npy", "about.json"
_CHUNK = 256  # images in memory at once


def packed_folder(root: Path, name: str, split: str) -> Path:
    """Where the packed copy of a split is."""
    return root / "packed" / f"{name}-{split}"


class PackedReader:
    """Reads rows of a packed split as uint8 [n, 3, H, W]; the file is mapped in each process that reads."""

    def __init__(self, path: Path):
        self.path, self._images = path, None

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        if self._images is None:
            self._images = np.load(self.path, mmap_mode="r")
        return self._images[rows]

    def __getstate__(self) -> dict:
        return {"path": self.path, "_images": None}


def pack(dataset: ImageDataset, folder: Path, about: dict | None = None,
         progress: Callable[[int], None] = lambda images: None) -> None:
    """Write ``dataset`` to ``folder``; what is there already, perhaps by another process, is replaced as a whole.

    about: what ``read_packed`` is to find with it, beside its name, split, layout, ids and labels. Raises OutputError,
    first of all where the disk has too little room, and UnreadableImageError: what is packed is whole.
    """
    size = dataset.read(np.array([0]))[0].nbytes * len(dataset)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(folder.parent).free) < size * 1.02:
            raise OutputError(f"no room to pack {dataset.name} into {folder}: {size / 1e9:.2f} GB needed, "
                              f"{free / 1e9:.2f} GB free")
        part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".part", dir=folder.parent))
        part.chmod(0o777 & ~_umask())  # others may read it, as any file here
    except OSError as error:
        raise OutputError(f"cannot write into {folder.parent} ({error.strerror})") from error
    try:
        _write(dataset, part, about or {}, progress)
        _put_in_place(part, folder)
    except OSError as error:
        raise OutputError(f"cannot write the packed {dataset.name} to {folder} ({error.strerror})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _put_in_place(part: Path, folder: Path) -> None:
    """Move ``part`` to ``folder``; of two processes that finish at once the later one's copy stays, whole."""
    for attempt in range(10):
        with suppress(FileNotFoundError):
            os.replace(folder, old := part.with_suffix(f".old{attempt}"))
            shutil.rmtree(old, ignore_errors=True)
        try:
            os.replace(part, folder)
            return
        except OSError as error:  # another process was faster: put its copy aside
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    raise OSError(errno.EBUSY, "other processes keep writing it")


def _umask() -> int:
    os.umask(mask := os.umask(0))
    return mask


def _write(dataset: ImageDataset, folder: Path, about: dict, progress: Callable[[int], None]) -> None:
    with (folder / IMAGES).open("wb") as file:  # not a memory map, which a full disk would end without an error
        for first in range(0, len(dataset), _CHUNK):
            rows = np.arange(first, min(first + _CHUNK, len(dataset)))
            chunk = dataset.read(rows)
            if not first:
                shape = (len(dataset), *chunk.shape[1:])
                np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            file.write(np.ascontiguousarray(chunk).data)
            progress(len(rows))
    record = {**about, "name": dataset.name, "split": dataset.split, "layout": dataset.layout, "ids": dataset.ids,
              "labels": dataset.labels.tolist()}
    (folder / ABOUT).write_text(json.dumps(record), encoding="utf-8")


def read_packed(folder: Path, about: dict | None = None) -> tuple[dict, PackedReader] | None:
    """What a packed split says of itself, and its images; None where there is none.

    about: what it has to say. Raises DatasetError where it is broken, or of something else.
    """
    if not os.path.isdir(folder):  # Path.is_dir raises in a closed folder
        return None
    try:
        found = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        shape = np.load(folder / IMAGES, mmap_mode="r").shape
        whole = shape[0] == len(found["ids"]) == len(found["labels"])
        found.setdefault("layout", "unknown")  # copies that older versions wrote do not say it
    except (OSError, ValueError, LookupError, TypeError, EOFError) as error:
        raise DatasetError(f"cannot read the packed images in {folder} ({error}): delete that folder") from error
    if not whole:
        raise DatasetError(f"the packed images in {folder} are incomplete: delete that folder")
    if differing := [f"{key} is {found.get(key)!r}, expected {value!r}" for key, value in (about or {}).items()
                     if found.get(key) != value]:
        raise DatasetError(f"the packed images in {folder} are of something else ({'; '.join(differing)}): delete that "
                           "folder, or pack again")
    return found, PackedReader(folder / IMAGES)
