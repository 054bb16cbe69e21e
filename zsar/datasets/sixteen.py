"""The sixteen real datasets as ``ImageDataset``: packed, in their own layout, or as shards, whichever is there."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch

from zsar.datasets.base import ImageDataset
from zsar.datasets.manifest import Manifest, get_manifest
from zsar.datasets.packed import PackedReader, packed_folder, read_packed
from zsar.datasets.real import READERS, Listing
from zsar.datasets.real.images import Decoder
from zsar.datasets.real.shards import read_parquet, read_wds
from zsar.errors import DatasetError, MissingDatasetError
from zsar.paths import cache_path

SHARDS = {"parquet": read_parquet, "wds": read_wds}


def data_root() -> Path:
    """Where the real datasets lie: ``$ZSAR_DATA``, else a folder in the user's cache."""
    folder = os.environ.get("ZSAR_DATA")
    return Path(folder).expanduser() if folder else cache_path("datasets")


def load_sixteen(name: str, split: str, root: Path, protocol: str, partial: bool = False,
                 packed: bool = True) -> ImageDataset:
    """A split of one of the sixteen; see ``zsar.datasets.load_dataset``. ``packed``: use a packed copy if there is one.

    Raises DatasetError.
    """
    manifest = get_manifest(name)
    texts, expected = manifest.protocols[protocol], expected_images(manifest, split, protocol)
    if packed and (found := read_packed(packed_folder(root, name, split), packed_as(manifest, split))):
        ids, labels, read = found[0]["ids"], np.array(found[0]["labels"], np.int64), found[1]
        layout = found[0]["layout"]
    else:
        layout, listing = find_listing(manifest, split, root)
        ids, labels = listing.ids, listing.labels
        read = Decoder(listing.encoded, ids, manifest.transform, manifest.size)
    if len(ids) != expected and not partial:
        where = f"packed in {packed_folder(root, name, split)}: pack it again" if isinstance(read, PackedReader) else \
            f"in {root}: python -m zsar data verify {name} says what is missing"
        raise DatasetError(f"{name} {split}: found {len(ids):,} images, expected {expected:,}, {where}")
    return ImageDataset(name, split, texts.classnames, texts.templates, torch.from_numpy(labels), ids, read,
                        verbatim=True, layout=layout)


def packed_as(manifest: Manifest, split: str) -> dict:
    """What a packed copy has to say of itself: of which classes and at which size its images are."""
    classes = hashlib.sha256(json.dumps(manifest.annotated).encode()).hexdigest()[:12]
    return {"name": manifest.name, "split": split, "classes": classes, "transform": manifest.transform}


def expected_images(manifest: Manifest, split: str, protocol: str = "tecoa16") -> int | None:
    """How many images a split has; None for the training split of a dataset that has none."""
    return manifest.protocols[protocol].images if split == "test" else manifest.train_images


def find_listing(manifest: Manifest, split: str, root: Path) -> tuple[str, Listing]:
    """The layout that a split is there in, and its images: ``files``, as they are published, or else shards below the
    folder ``parquet`` or ``wds``.

    Raises DatasetError.
    """
    try:
        return "files", READERS[manifest.name](root, split, manifest.annotated)
    except MissingDatasetError:  # files that are there but not whole are never passed over in silence
        for kind, read in SHARDS.items():
            if os.path.isdir(folder := root / kind / manifest.name):  # Path.is_dir raises in a closed folder
                return kind, read(folder, split, manifest.annotated)
        raise
