"""The sixteen as the Hugging Face hub has them: parquet files, and webdataset tars as CLIP_benchmark writes them.

Nothing is extracted: an index says where each image is, and only that part of a file is read.
"""

import json
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np

from zsar.datasets.real.listing import Listing, check_complete, looking, mend, reading, relabel, some, walk
from zsar.errors import DatasetError

#: What the hub calls a split. Several sets have no ``test``, and ImageNet's hides its labels: there it is validation.
SPLITS = {"train": ("train",), "test": ("test", "validation", "valid", "val")}
#: The paths of its shards in the repository, and how the files of each kind end, shards and the lists beside them.
SHARD_PATHS = {"parquet": r"(.*/)?{}(-[^/]*|/[^/]*)?\.parquet", "wds": r"{}/[^/]+\.tar"}
ENDINGS = {"parquet": (".parquet",), "wds": (".tar", ".txt")}
CLASSES, COUNT = "classnames.txt", "nshards.txt"
IMAGES, LABELS = ("image", "img"), ("fine_label", "label")
SUFFIXES = ("jpg", "jpeg", "png", "webp")


def is_shard(kind: str, path: str, called: str) -> bool:
    """Whether ``path`` in a repository, with slashes, is a shard (``parquet`` or ``wds``) of the split ``called``."""
    return re.fullmatch(SHARD_PATHS[kind].format(called), path) is not None


def files_to_fetch(kind: str, paths: Sequence[str], split: str) -> list[str]:
    """Which ``paths`` in a repository ``read_parquet`` or ``read_wds`` may look at for ``split`` (``all``: for both).

    Where no shard is named after it, all of that kind: somebody has to see what they are.
    """
    called = [called for part in (SPLITS if split == "all" else [split]) for called in SPLITS[part]]
    paths = [path for path in paths if path.endswith(ENDINGS[kind])]
    shards = [path for path in paths if any(is_shard(kind, path, name) for name in called)]
    lists = {CLASSES, *(f"{name}/{COUNT}" for name in called)}
    return shards + [path for path in paths if path in lists] if shards else paths


def match_classes(name: str, where: Path, own: Sequence[str], annotated: tuple[str, ...]) -> np.ndarray:
    """Which label, int64 [K], each class of a shard's own list ``own`` is.

    By name, where ``annotated`` knows all of them (case and punctuation aside). Shards often carry texts for prompts
    instead; then by position, provided that the names which are known stand where they should, and that there are some
    or ``annotated`` has only codes such as n01440764 or 17. Raises DatasetError for another number, order or set.
    """
    known = {_plain(spelled): label for label, spelled in enumerate(annotated)}
    labels = [known.get(_plain(text)) for text in own]
    if len(own) == len(annotated):
        if None not in labels and len(set(labels)) == len(labels):
            return np.array(labels, np.int64)
        in_place = [label == place for place, label in enumerate(labels) if label is not None]
        codes = all(re.fullmatch(r"n?\d+", spelled) for spelled in annotated)
        if all(in_place) and (in_place or codes):
            return np.arange(len(own))
    raise DatasetError(f"{name}: {where} has the {len(own)} classes {some(own)}: expected the {len(annotated)} classes "
                       f"{some(annotated)} in their order; is it another dataset or split?")


def _plain(text: str) -> str:
    """Letters and digits of a class name; SUN397's /a/abbey is abbey."""
    return re.sub(r"[\W_]+", " ", re.sub(r"^/\w/", "", text)).strip().casefold()


def _listing(folder: Path, ids: list[str], labels: np.ndarray, encoded: Sequence[bytes],
             annotated: tuple[str, ...]) -> Listing:
    check_complete(folder.name, folder, labels, annotated)
    return Listing(ids, labels, encoded)


# parquet

@dataclass(frozen=True)
class _Table:
    """What one parquet file holds: labels and (row group, row in it) of its rows, and which column has the images."""

    path: Path
    labels: np.ndarray
    places: np.ndarray
    column: str
    classes: list[str] | None


def read_parquet(folder: Path, split: str, annotated: tuple[str, ...]) -> Listing:
    """The files ``test-00000-of-00002.parquet`` (or ``test/0000.parquet``) of ``split``, anywhere below ``folder``.

    A row has ``image`` (or ``img``), the bytes of a file or a struct with them, and ``label`` (or ``fine_label``), an
    integer, which counts the classes named in the file's metadata (see ``match_classes``); where none are named, it
    counts ``annotated``. A split whose labels are all -1, hidden ones, is passed over. Raises DatasetError.
    """
    for called in SPLITS[split]:
        tables = [_read_table(folder.name, path) for path in _parquet_files(folder, called)]
        if any((table.labels >= 0).any() for table in tables):
            return _join(folder, tables, annotated)
    raise DatasetError(f"{folder.name}: there are no parquet files with labels of the {split} split below {folder}: "
                       f"expected {SPLITS[split][0]}-00000-of-00001.parquet or the like; {mend(folder.name, split)}")


def _parquet_files(folder: Path, called: str) -> list[Path]:
    """The files of the split ``called``, in order. Raises DatasetError where their names say that there are more."""
    files = (Path(below) / file for below, _, names in walk(folder.name, folder) for file in names)
    paths = sorted(path for path in files if is_shard("parquet", path.relative_to(folder).as_posix(), called))
    told = [int(count) for path in paths for count in re.findall(r"-\d+-of-(\d+)", path.name)]
    if told and len(told) != max(told):
        raise DatasetError(f"{folder.name}: {folder} has {len(told)} of the {max(told)} files that {paths[0].name} is "
                           f"one of; {mend(folder.name, called)}")
    return paths


def _read_table(name: str, path: Path) -> _Table:
    """Labels and layout of a file; no image is read."""
    parquet = _parquet()
    with reading(name, path, "a parquet file with the columns image and label"), parquet.ParquetFile(path) as file:
        schema, groups = file.schema_arrow, range(file.metadata.num_row_groups)
        image, label = (_column(name, path, schema.names, columns) for columns in (IMAGES, LABELS))
        labels = file.read([label], use_threads=False).column(0)
        if labels.null_count:
            raise DatasetError(f"{name}: {path} has no label in {labels.null_count} of {len(labels)} rows")
        info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {})
        sizes = [file.metadata.row_group(group).num_rows for group in groups]
        places = [(group, row) for group, size in zip(groups, sizes, strict=True) for row in range(size)]
        column = f"{image}.bytes" if schema.field(image).type.num_fields else image
        return _Table(path, labels.to_numpy().astype(np.int64), np.array(places, np.int64).reshape(-1, 2), column,
                      info.get("features", {}).get(label, {}).get("names"))


def _column(name: str, path: Path, columns: Sequence[str], wanted: Sequence[str]) -> str:
    for column in wanted:
        if column in columns:
            return column
    raise DatasetError(f"{name}: {path} has the columns {some(columns, 6)}: expected one called {' or '.join(wanted)}")


def _join(folder: Path, tables: list[_Table], annotated: tuple[str, ...]) -> Listing:
    first = tables[0]
    order = np.arange(len(annotated))
    if first.classes:
        order = match_classes(folder.name, first.path, first.classes, annotated)
    ids = [f"{table.path.relative_to(folder).as_posix()}/{row:06d}" for table in tables
           for row in range(len(table.labels))]
    labels = relabel(folder.name, folder, np.concatenate([table.labels for table in tables]), order)
    places = np.concatenate([np.insert(table.places, 0, number, axis=1) for number, table in enumerate(tables)])
    return _listing(folder, ids, labels, ParquetImages([table.path for table in tables], first.column, places),
                    annotated)


class ParquetImages(Sequence[bytes]):
    """Encoded images in parquet files; places: int64 [N, 3], the file, its row group, and the row in that.

    A row group is the least that can be read: reading in order is quick, and jumping about is not.
    """

    def __init__(self, paths: list[Path], column: str, places: np.ndarray):
        self.paths, self.column, self.places = paths, column, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, row: int) -> bytes:
        file, group, inside = self.places[row].tolist()
        value = _row_group(self.paths[file], self.column, group)[inside].as_py()
        return (value["bytes"] if isinstance(value, dict) else value) or b""


@lru_cache(maxsize=4)
def _row_group(path: Path, column: str, group: int):
    """One column of a row group, as a pyarrow array."""
    with _parquet().ParquetFile(path) as file:
        return file.read_row_group(group, [column], use_threads=False).column(0)


def _parquet() -> ModuleType:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DatasetError("parquet files need a library that is not installed: pip install pyarrow") from error
    return pyarrow.parquet


# webdataset

def read_wds(folder: Path, split: str, annotated: tuple[str, ...]) -> Listing:
    """``folder/test/0.tar`` and so on, with members ``s0000001.webp`` (or .jpg, .png) and ``s0000001.cls``, its label
    in digits, which counts the lines of ``folder/classnames.txt`` (see ``match_classes``). Raises DatasetError.
    """
    name, names = folder.name, folder / CLASSES
    with reading(name, names, "a class a line"):
        own = [line.strip() for line in names.read_text(encoding="utf-8").splitlines() if line.strip()]
    order = match_classes(name, names, own, annotated)
    paths = _tars(folder, split)
    rows = sorted((path.relative_to(folder).as_posix() + f"/{key}", label, number, offset, size)
                  for number, path in enumerate(paths) for key, label, offset, size in _index(name, path))
    labels = relabel(name, folder, [row[1] for row in rows], order)
    places = np.array([row[2:] for row in rows], np.int64).reshape(-1, 3)
    return _listing(folder, [row[0] for row in rows], labels, TarImages(paths, places), annotated)


def _tars(folder: Path, split: str) -> list[Path]:
    """The tars of a split; ``nshards.txt`` beside them may say how many there should be. Raises DatasetError."""
    for called in SPLITS[split]:
        with looking(folder.name, folder / called):
            if not (folder / called).is_dir():
                continue
            paths = sorted(path for path in (folder / called).iterdir()
                           if is_shard("wds", f"{called}/{path.name}", called))
            count = folder / called / COUNT
            told = count.read_text(errors="replace").strip() if count.is_file() else str(len(paths))
        if paths and told != str(len(paths)):
            raise DatasetError(f"{folder.name}: {count.parent} has {len(paths)} tars: expected the number in "
                               f"{count.name}, {told[:20]}; {mend(folder.name, split)}")
        if paths:
            return paths
    raise DatasetError(f"{folder.name}: there are no tars of the {split} split in {folder}: expected "
                       f"{SPLITS[split][0]}/0.tar and so on; {mend(folder.name, split)}")


def _index(name: str, path: Path) -> list[tuple[str, int, int, int]]:
    """Key, label, offset and size of every image in a tar, from its headers. Raises DatasetError."""
    images, labels = {}, {}
    with reading(name, path, "a whole, uncompressed tar of images and .cls files"), tarfile.open(path, "r:") as tar:
        for member in tar:
            parts = re.fullmatch(r"(?:\./)?((?:.*/)?[^./]+)\.([^/]+)", member.name)
            if not member.isreg() or parts is None:
                continue
            if parts[2] == "cls":
                labels[parts[1]] = int(tar.extractfile(member).read())
            elif parts[2].lower() in SUFFIXES:
                images[parts[1]] = (member.offset_data, member.size)
        tar.fileobj.seek(-2 * tarfile.BLOCKSIZE, 2)
        if any(tar.fileobj.read()):
            raise DatasetError(f"{name}: {path} is cut off: a tar ends in empty blocks; {mend(name)}")
    if lonely := sorted(images.keys() ^ labels.keys()):
        raise DatasetError(f"{name}: {path} has no label, or no image ({', '.join(SUFFIXES)}), for {some(lonely)}; "
                           f"{mend(name)}")
    return [(key, labels[key], *place) for key, place in images.items()]


class TarImages(Sequence[bytes]):
    """Encoded images in tars; places: int64 [N, 3], the tar, and the offset and size in it in bytes."""

    def __init__(self, paths: list[Path], places: np.ndarray):
        self.paths, self.places = paths, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, row: int) -> bytes:
        number, offset, size = self.places[row].tolist()
        with self.paths[number].open("rb") as file:
            file.seek(offset)
            return file.read(size)
