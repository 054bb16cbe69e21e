"""Datasets whose files of annotation say which image is of which class and split."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from zsar.datasets.real.listing import (
    Listing,
    dataset_folder,
    list_files,
    mend,
    reading,
    relabel,
    some,
    to_labels,
    walk,
)
from zsar.errors import DatasetError


def oxford_pets(root: Path, split: str, annotated: tuple[str, ...]) -> Listing:
    """``root/oxford-iiit-pet/images/Abyssinian_1.jpg``, listed in ``annotations/test.txt`` (``trainval.txt``).

    A line is ``Abyssinian_201 1 1 1``: the image, its class counted from 1, cat or dog, breed. Raises DatasetError.
    """
    folder = dataset_folder("OxfordPets", root, "oxford-iiit-pet")
    path, found = folder / "annotations" / ("trainval.txt" if split == "train" else "test.txt"), []
    with reading("OxfordPets", path, "lines like 'Abyssinian_201 1 1 1'"):
        for line in _lines(path):
            image, number = line.split()[:2]
            spelled = image.rsplit("_", 1)[0]
            if spelled in annotated and int(number) != annotated.index(spelled) + 1:
                raise DatasetError(f"OxfordPets: {path} gives {image} the class {number}: expected "
                                   f"{annotated.index(spelled) + 1}, counted from 1; {mend('OxfordPets')}")
            found.append((f"images/{image}.jpg", spelled))
    return _list_annotated("OxfordPets", folder, "images", path, found, annotated)


def stanford_cars(root: Path, split: str, annotated: tuple[str, ...]) -> Listing:
    """``root/stanford_cars/cars_test/00001.jpg``, listed in ``cars_test_annos_withlabels.mat`` (training images in
    ``cars_train`` and ``devkit/cars_train_annos.mat``); ``devkit/cars_meta.mat`` has the classes. Raises DatasetError.
    """
    folder = dataset_folder("StanfordCars", root, "stanford_cars")
    meta, inner = folder / "devkit" / "cars_meta.mat", f"cars_{split}"
    path = folder / ("devkit/cars_train_annos.mat" if split == "train" else "cars_test_annos_withlabels.mat")
    with reading("StanfordCars", meta, "the array class_names"):
        own = [str(spelled) for spelled in np.atleast_1d(loadmat(meta, squeeze_me=True)["class_names"])]
        order = to_labels("StanfordCars", meta, own, annotated)
    with reading("StanfordCars", path, "the array annotations with the fields fname and class"):
        rows = np.atleast_1d(loadmat(path, squeeze_me=True)["annotations"])
        labels = relabel("StanfordCars", path, [int(row["class"]) - 1 for row in rows], order)
        found = [(f"{inner}/{row['fname']}", annotated[label]) for row, label in zip(rows, labels, strict=True)]
    return _list_annotated("StanfordCars", folder, inner, path, found, annotated)


def food101(root: Path, split: str, annotated: tuple[str, ...]) -> Listing:
    """``root/food-101/images/apple_pie/1005649.jpg``, listed in ``meta/test.json``. Raises DatasetError."""
    folder = dataset_folder("Food101", root, "food-101")
    path = folder / "meta" / f"{split}.json"
    with reading("Food101", path, "a JSON object from each class to its images"):
        found = [(f"images/{image}.jpg", spelled)
                 for spelled, images in json.loads(path.read_text(encoding="utf-8")).items() for image in images]
    return _list_annotated("Food101", folder, "images", path, found, annotated)


def flowers102(root: Path, split: str, annotated: tuple[str, ...]) -> Listing:
    """``root/flowers-102/jpg/image_00001.jpg``; ``imagelabels.mat`` has the class of every image, 1 to 102, and
    ``setid.mat`` the images of a split (``trnid``, ``tstid``). Raises DatasetError.
    """
    folder = dataset_folder("Flowers102", root, "flowers-102")
    path, splits = folder / "imagelabels.mat", folder / "setid.mat"
    with reading("Flowers102", path, "the array labels"):
        labels = np.atleast_1d(loadmat(path, squeeze_me=True)["labels"]).astype(np.int64)
    with reading("Flowers102", splits, "the arrays trnid and tstid"):
        numbers = np.atleast_1d(loadmat(splits, squeeze_me=True)["trnid" if split == "train" else "tstid"])
        if numbers.min() < 1 or numbers.max() > len(labels):
            raise DatasetError(f"Flowers102: {splits} names the images {numbers.min()} to {numbers.max()}: expected "
                               f"1 to {len(labels)}, which have a label in {path.name}; {mend('Flowers102')}")
    found = [(f"jpg/image_{number:05d}.jpg", str(labels[number - 1])) for number in numbers.tolist()]
    return _list_annotated("Flowers102", folder, "jpg", path, found, annotated)


def fgvc_aircraft(root: Path, split: str, annotated: tuple[str, ...]) -> Listing:
    """``root/fgvc-aircraft-2013b/data/images/0034309.jpg``, listed in ``data/images_variant_test.txt``.

    A line is ``0034309 F/A-18``. Raises DatasetError.
    """
    folder = dataset_folder("FGVCAircraft", root, "fgvc-aircraft-2013b")
    path = folder / "data" / f"images_variant_{split}.txt"
    with reading("FGVCAircraft", path, "lines like '0034309 747-400'"):
        pairs = [line.split(" ", 1) for line in _lines(path)]
        found = [(f"data/images/{image}.jpg", variant) for image, variant in pairs]
    return _list_annotated("FGVCAircraft", folder, "data/images", path, found, annotated)


def dtd(root: Path, split: str, annotated: tuple[str, ...]) -> Listing:
    """``root/dtd/dtd/images/banded/banded_0002.jpg``, listed in ``labels/test1.txt``: partition 1 of ten.

    Raises DatasetError.
    """
    folder = dataset_folder("DTD", root, "dtd/dtd")
    path = folder / "labels" / f"{split}1.txt"
    with reading("DTD", path, "lines like 'banded/banded_0002.jpg'"):
        found = [(f"images/{image}", image.split("/")[0]) for image in _lines(path)]
    return _list_annotated("DTD", folder, "images", path, found, annotated)


def hateful_memes(root: Path, split: str, annotated: tuple[str, ...]) -> Listing:
    """``root/hateful_memes/img/01236.png``, listed in ``test_seen.jsonl`` and ``test_unseen.jsonl`` (``train.jsonl``).

    The path of an image is what the line calls ``img``: its ``id`` may be a number that lost its leading zeros.
    Raises DatasetError.
    """
    folder, found = dataset_folder("HatefulMemes", root, "hateful_memes"), []
    for part in ("train",) if split == "train" else ("test_seen", "test_unseen"):
        path = folder / f"{part}.jsonl"
        with reading("HatefulMemes", path, 'lines like {"id": "01236", "img": "img/01236.png", "label": 1}'):
            rows = [json.loads(line) for line in _lines(path)]
            if unlabelled := [str(row["img"]) for row in rows if row.get("label") is None]:
                raise DatasetError(f"HatefulMemes: {path} has no label for {len(unlabelled)} of {len(rows)} images "
                                   f"({some(unlabelled)}): expected the release with labels of the tests, not the "
                                   "challenge's own")
            found += [(str(row["img"]), str(row["label"])) for row in rows]
    return _list_annotated("HatefulMemes", folder, "img", path, found, annotated)


def _lines(path: Path) -> list[str]:
    """Lines that say something: neither empty nor a comment."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _list_annotated(name: str, folder: Path, inner: str, path: Path, found: Sequence[tuple[str, str]],
                    annotated: tuple[str, ...]) -> Listing:
    """The listing of ``found``, after a look whether each image is below ``folder/inner``; nothing is opened."""
    present = set()
    for below, _, files in walk(name, folder / inner):
        at = Path(below).relative_to(folder).as_posix()
        present.update(f"{at}/{file}" for file in files)
    if absent := sorted({image for image, _ in found} - present):
        raise DatasetError(f"{name}: {len(absent)} of the {len(found)} images that {path} lists are not in "
                           f"{folder / inner} ({some(absent)}): only half extracted; {mend(name)}")
    return list_files(name, folder, path, found, annotated)
