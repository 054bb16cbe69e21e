"""Datasets whose folders are their classes: ImageNet, Caltech101, Caltech256, SUN397 and EuroSAT."""

from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from zsar.datasets.real.listing import Listing, dataset_folder, list_files, looking, mend, some, walk
from zsar.errors import DatasetError

#: Folders beside the classes that hold no images of theirs: Caltech101's background, and what archivers leave.
NO_CLASSES = {"BACKGROUND_Google", "__MACOSX", "lost+found"}


def imagenet(root: Path, split: str, annotated: tuple[str, ...]) -> Listing:
    """``root/val/<wnid>/*.JPEG`` (or ``train``), as torchvision's ImageNet leaves it. Raises DatasetError."""
    part = "train" if split == "train" else "val"
    dataset_folder("ImageNet", root, part)
    return _by_folder("ImageNet", Path(root).expanduser(), part, "*.jpeg", annotated)


def caltech101(root: Path, split: str, annotated: tuple[str, ...]) -> Listing:
    """``root/caltech101/101_ObjectCategories/<class>/image_0001.jpg``, without the background. Raises DatasetError."""
    return _whole("Caltech101", root, split, "caltech101", "101_ObjectCategories", "image_*.jpg", annotated)


def caltech256(root: Path, split: str, annotated: tuple[str, ...]) -> Listing:
    """``root/caltech256/256_ObjectCategories/001.ak47/001_0001.jpg``. Raises DatasetError."""
    return _whole("Caltech256", root, split, "caltech256", "256_ObjectCategories", "*.jpg", annotated)


def eurosat(root: Path, split: str, annotated: tuple[str, ...]) -> Listing:
    """``root/eurosat/2750/AnnualCrop/AnnualCrop_1.jpg``. Raises DatasetError."""
    return _whole("EuroSAT", root, split, "eurosat", "2750", "*.jpg", annotated)


def sun397(root: Path, split: str, annotated: tuple[str, ...]) -> Listing:
    """``root/SUN397/a/abbey/sun_aaaaaaaaaaaaaaaa.jpg``; the class of that is ``/a/abbey``. Raises DatasetError."""
    return _whole("SUN397", root, split, "SUN397", "", "sun_*.jpg", annotated)


def _whole(name: str, root: Path, split: str, below: str, inner: str, pattern: str,
           annotated: tuple[str, ...]) -> Listing:
    """A dataset that is evaluated as a whole: there is nothing left to train on."""
    if split != "test":
        raise DatasetError(f"{name} has no {split} split: all its images are evaluated on; "
                           "take 'test', and another dataset to train on")
    folder = dataset_folder(name, root, below)
    return _by_folder(name, folder, inner, pattern, annotated)


def _by_folder(name: str, folder: Path, inner: str, pattern: str, annotated: tuple[str, ...]) -> Listing:
    """The images of the class folders below ``folder/inner``; ids are the paths below ``folder``."""
    top = folder / inner
    with looking(name, top):
        if not top.is_dir():
            raise DatasetError(f"{name}: there is no {inner}/ in {folder}: expected a folder for each of "
                               f"{len(annotated)} classes in it; {mend(name)}")
    folders = {spelled.strip("/"): spelled for spelled in annotated}
    parents = {str(parent) for path in folders for parent in PurePosixPath(path).parents}
    found, strangers = [], []
    for path, below, files in walk(name, top):
        here = Path(path).relative_to(top).as_posix()
        if here in folders:
            if here not in parents:
                below.clear()  # what lies deeper is not of the class
            at = Path(path).relative_to(folder).as_posix()
            found += [(f"{at}/{file}", folders[here]) for file in files
                      if fnmatch(file.lower(), pattern) and not file.startswith(".")]
        elif here not in parents:
            below.clear()
            strangers.append(here)
        below[:] = [entry for entry in below if entry not in NO_CLASSES and not entry.startswith(".")]
    if strangers:
        raise DatasetError(f"{name}: {top} holds {some(sorted(strangers))}, which are none of its {len(annotated)} "
                           f"classes ({some(annotated)}): is it another dataset? Move away what is foreign; "
                           f"{mend(name)}")
    return list_files(name, folder, top, found, annotated)
