"""The original layouts of the sixteen, each against another reading of the same files, and what can be wrong there."""

import json
import os
import pickle
import shutil
import sys
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from real_fixtures import CLASSES, build, python2_pickle
from scipy.io import loadmat, savemat
from torch.utils.data import DataLoader
from torchvision import datasets

from zsar.datasets.base import ImageDataset
from zsar.datasets.real import READERS, Listing
from zsar.datasets.real.images import Decoder
from zsar.errors import DatasetError, MissingDatasetError, UnreadableImageError
from zsar.profiles import SIXTEEN

#: torchvision's reading of a split; None where it has none. HatefulMemes it does not know.
TORCHVISION = {
    "ImageNet": lambda root, test: datasets.ImageNet(root, "val" if test else "train"),
    "CIFAR10": lambda root, test: datasets.CIFAR10(root, train=not test),
    "CIFAR100": lambda root, test: datasets.CIFAR100(root, train=not test),
    "STL10": lambda root, test: datasets.STL10(root, "test" if test else "train"),
    "Caltech101": lambda root, test: datasets.Caltech101(root),
    "Caltech256": lambda root, test: datasets.Caltech256(root),
    "OxfordPets": lambda root, test: datasets.OxfordIIITPet(root, "test" if test else "trainval"),
    "StanfordCars": lambda root, test: datasets.StanfordCars(root, "test" if test else "train"),
    "Food101": lambda root, test: datasets.Food101(root, "test" if test else "train"),
    "Flowers102": lambda root, test: datasets.Flowers102(root, "test" if test else "train"),
    "FGVCAircraft": lambda root, test: datasets.FGVCAircraft(root, "test" if test else "train"),
    "SUN397": lambda root, test: datasets.SUN397(root),
    "DTD": lambda root, test: datasets.DTD(root, "test" if test else "train", partition=1),
    "PCAM": lambda root, test: datasets.PCAM(root, "test" if test else "train"),
    "EuroSAT": lambda root, test: datasets.EuroSAT(root),
}
WHOLE = ("Caltech101", "Caltech256", "SUN397", "EuroSAT")
WITH_TRAIN = [name for name in SIXTEEN if name not in WHOLE]
FOLDERS = {"ImageNet": "val", "CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python", "STL10": "stl10_binary",
           "Caltech101": "caltech101", "Caltech256": "caltech256", "OxfordPets": "oxford-iiit-pet",
           "StanfordCars": "stanford_cars", "Food101": "food-101", "Flowers102": "flowers-102",
           "FGVCAircraft": "fgvc-aircraft-2013b", "SUN397": "SUN397", "DTD": "dtd/dtd", "PCAM": "pcam",
           "HatefulMemes": "hateful_memes", "EuroSAT": "eurosat"}
PICTURES = (".jpg", ".jpeg", ".png")


def read(name: str, root: Path, split: str = "test") -> Listing:
    return READERS[name](root, split, CLASSES[name])


def pixels(listing: Listing) -> list[np.ndarray]:
    """Every image of a listing, uint8 [H, W, 3]."""
    decoder = Decoder(listing.encoded, listing.ids, "none")
    return [decoder(np.array([row]))[0].transpose(1, 2, 0) for row in range(len(listing.ids))]


def counted(images: list[np.ndarray], labels: list[int]) -> Counter:
    """How often each picture occurs with each label."""
    return Counter((image.shape, image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


def refused(name: str, root: Path, *said: str, split: str = "test") -> None:
    """The reader raises one line that says all of ``said``, the dataset, and how to mend it."""
    with pytest.raises(DatasetError) as caught:
        read(name, root, split)
    message = str(caught.value)
    assert "\n" not in message and name in message
    for text in said:
        assert str(text) in message, message


@pytest.fixture
def foreign_checksums(monkeypatch):
    """torchvision accepts files that are not the genuine ones."""
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: True)
    for module in (datasets.cifar, datasets.flowers102):
        monkeypatch.setattr(module, "check_integrity", lambda *arguments: True)


# what is read

@pytest.mark.usefixtures("foreign_checksums")
@pytest.mark.parametrize(("name", "split"), [(name, "test") for name in TORCHVISION]
                         + [(name, "train") for name in WITH_TRAIN if name in TORCHVISION])
def test_images_and_labels_are_torchvisions(name, split, tmp_path):
    build(name, tmp_path, strays=False)
    theirs = TORCHVISION[name](str(tmp_path), split == "test")
    images, labels = zip(*(theirs[row] for row in range(len(theirs))), strict=True)
    listing = read(name, tmp_path, split)
    assert len(listing.ids) == len(theirs) > len(CLASSES[name])
    assert counted(pixels(listing), listing.labels) == counted([np.asarray(image.convert("RGB")) for image in images],
                                                               labels)


@pytest.mark.parametrize(("split", "parts"), [("test", ("test_seen", "test_unseen")), ("train", ("train",))])
def test_hateful_memes_are_those_of_the_lines(split, parts, tmp_path):
    build("HatefulMemes", tmp_path)
    lines = [json.loads(line) for part in parts
             for line in (tmp_path / "hateful_memes" / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()]
    images = [np.asarray(Image.open(tmp_path / "hateful_memes" / line["img"]).convert("RGB")) for line in lines]
    listing = read("HatefulMemes", tmp_path, split)
    assert counted(pixels(listing), listing.labels) == counted(images, [line["label"] for line in lines])
    assert listing.ids == sorted(line["img"] for line in lines) and listing.ids[0].startswith("img/0")


@pytest.mark.parametrize("name", SIXTEEN)
def test_listings_are_sorted_whatever_lies_beside(name, tmp_path):
    build(name, tmp_path / "clean", strays=False)
    build(name, tmp_path / "strays")
    clean, strays = read(name, tmp_path / "clean"), read(name, tmp_path / "strays")
    assert strays.ids == clean.ids == sorted(set(clean.ids)) and np.array_equal(strays.labels, clean.labels)
    assert clean.labels.dtype == np.int64 and set(clean.labels) == set(range(len(CLASSES[name])))
    assert all(map(np.array_equal, pixels(strays), pixels(clean)))


@pytest.mark.parametrize("name", sorted(set(SIXTEEN) - {"CIFAR10", "CIFAR100", "STL10", "PCAM"}))
def test_ids_are_paths_and_listing_opens_no_image(name, tmp_path):
    build(name, tmp_path)
    before = read(name, tmp_path)
    for path in tmp_path.rglob("*"):
        if path.suffix.lower() in PICTURES:
            path.write_bytes(b"")
    after = read(name, tmp_path)
    folder = tmp_path if name == "ImageNet" else tmp_path / FOLDERS[name]
    assert after.ids == before.ids and list(after.encoded) == [folder / name for name in after.ids]
    assert all(path.is_file() for path in after.encoded)


@pytest.mark.parametrize("name", sorted(set(SIXTEEN) - {"OxfordPets"}))  # which numbers its classes itself
def test_labels_follow_the_order_asked_for(name, tmp_path):
    build(name, tmp_path)
    forwards, backwards = read(name, tmp_path), READERS[name](tmp_path, "test", CLASSES[name][::-1])
    assert np.array_equal(backwards.labels, len(CLASSES[name]) - 1 - forwards.labels)


@pytest.mark.parametrize("name", SIXTEEN)
def test_listings_travel_between_processes(name, tmp_path):
    build(name, tmp_path)
    listing = read(name, tmp_path)
    expected = pixels(listing)
    there = pickle.loads(pickle.dumps(listing))
    assert all(map(np.array_equal, pixels(there), expected))
    assert len(pickle.dumps(listing.encoded)) < 3000 or name.startswith("CIFAR")


@pytest.mark.parametrize("name", ["PCAM", "STL10"])
def test_forked_worker_processes_read_what_is_read_here(name, tmp_path):
    build(name, tmp_path)
    listing = read(name, tmp_path)
    data = ImageDataset(name, "test", CLASSES[name], ["{}"], torch.from_numpy(listing.labels), listing.ids,
                        Decoder(listing.encoded, listing.ids, "none"))
    images, labels = data.stack()
    loader = DataLoader(data, batch_size=3, num_workers=1, multiprocessing_context="fork")
    found = list(loader)
    assert torch.equal(torch.cat([batch[0] for batch in found]), images)
    assert torch.equal(torch.cat([batch[1] for batch in found]), labels)


def test_the_genuine_caltech101_is_read_as_torchvision_reads_it():
    root = Path(os.environ.get("ZSAR_REAL_SAMPLES") or Path(__file__).parents[2] / "shared" / "real", "caltech101")
    if not root.is_dir():
        pytest.skip(f"there is no {root} with a genuine sample; ZSAR_REAL_SAMPLES may name the folder above it")
    theirs = datasets.Caltech101(root)
    names = [sorted(path.name for path in (root / "caltech101" / "101_ObjectCategories" / category).iterdir())
             for category in theirs.categories]
    theirs.index = [int(name[6:10]) for part in names for name in part]  # the sample leaves numbers out
    listing = READERS["Caltech101"](root, "test", tuple(theirs.categories))
    assert len(listing.ids) == len(theirs) > 600
    assert counted(pixels(listing), listing.labels) == counted(
        [np.asarray(theirs[row][0].convert("RGB")) for row in range(len(theirs))], theirs.y)
    cropped = Decoder(listing.encoded, listing.ids, "crop")(np.arange(0, len(theirs), 60))
    assert cropped.shape[1:] == (3, 224, 224)


# what is not there

@pytest.mark.parametrize("name", SIXTEEN)
def test_a_missing_root_or_folder_is_said(name, tmp_path):
    refused(name, tmp_path / "nowhere", tmp_path / "nowhere", "data fetch")
    (tmp_path / "somebody's holidays").mkdir()
    refused(name, tmp_path, FOLDERS[name], "holidays", f"data fetch {name}")


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_evaluated_as_a_whole_has_no_training_split(name, tmp_path):
    build(name, tmp_path)
    refused(name, tmp_path, "train", split="train")


@pytest.mark.parametrize("name", [*WHOLE, "ImageNet"])
def test_a_class_without_folder_or_images_is_half_extracted(name, tmp_path):
    build(name, tmp_path)
    missing, emptied = CLASSES[name][1], CLASSES[name][2]
    listing = read(name, tmp_path)
    paths = [[listing.encoded[row] for row in np.flatnonzero(listing.labels == label)] for label in (1, 2)]
    shutil.rmtree(paths[0][0].parent)
    for path in paths[1]:
        path.unlink()
    refused(name, tmp_path, missing, emptied, f"2 of {len(CLASSES[name])} classes", f"data verify {name}")


@pytest.mark.parametrize("name", [*WHOLE, "ImageNet"])
def test_a_folder_that_is_no_class_is_another_dataset(name, tmp_path):
    build(name, tmp_path)
    first = read(name, tmp_path).encoded[0]
    shutil.copytree(first.parent, first.parent.with_name("ocarina"))
    refused(name, tmp_path, "ocarina", "another dataset")


def test_the_inner_folder_is_expected(tmp_path):
    (tmp_path / "caltech101").mkdir()
    (tmp_path / "caltech101" / "Annotations").mkdir()
    refused("Caltech101", tmp_path, "101_ObjectCategories/", "5 classes")


@pytest.mark.parametrize("left", [(), (".caltech-101.zip.lock",), ("caltech-101.zip.part", "caltech-101.zip.part.json"),
                                  ("caltech-101.zip.mismatch", "caltech-101.zip"), (".x.tar.gz.lock", "x.tar.gz")])
def test_what_a_download_leaves_is_no_dataset(left, tmp_path):
    (tmp_path / "caltech101").mkdir()
    for name in left:
        (tmp_path / "caltech101" / name).write_bytes(b"")
    with pytest.raises(MissingDatasetError, match="a download that did not end"):
        read("Caltech101", tmp_path)
    build("Caltech101", tmp_path)
    assert read("Caltech101", tmp_path).ids


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everywhere")
@pytest.mark.parametrize(("name", "path"), [
    ("EuroSAT", ""), ("EuroSAT", "eurosat"), ("EuroSAT", "eurosat/2750"), ("EuroSAT", "eurosat/2750/Forest"),
    ("DTD", "dtd/dtd/images/banded"), ("DTD", "dtd/dtd/labels"), ("DTD", "dtd/dtd/labels/test1.txt"),
    ("CIFAR10", "cifar-10-batches-py/test_batch"), ("PCAM", "pcam")])
def test_what_must_not_be_read_is_said(name, path, tmp_path):
    build(name, tmp_path / "root")
    closed = tmp_path / "root" / path
    closed.chmod(0o000)
    try:
        refused(name, tmp_path / "root", "root", "ermission")
    finally:
        closed.chmod(0o700)


@pytest.mark.parametrize(("name", "path"), [
    ("CIFAR10", "cifar-10-batches-py/test_batch"), ("CIFAR10", "cifar-10-batches-py/batches.meta"),
    ("CIFAR100", "cifar-100-python/test"), ("CIFAR100", "cifar-100-python/meta"),
    ("STL10", "stl10_binary/test_X.bin"), ("STL10", "stl10_binary/test_y.bin"),
    ("STL10", "stl10_binary/class_names.txt"), ("OxfordPets", "oxford-iiit-pet/annotations/test.txt"),
    ("StanfordCars", "stanford_cars/cars_test_annos_withlabels.mat"),
    ("StanfordCars", "stanford_cars/devkit/cars_meta.mat"), ("Food101", "food-101/meta/test.json"),
    ("Flowers102", "flowers-102/imagelabels.mat"), ("Flowers102", "flowers-102/setid.mat"),
    ("FGVCAircraft", "fgvc-aircraft-2013b/data/images_variant_test.txt"), ("DTD", "dtd/dtd/labels/test1.txt"),
    ("PCAM", "pcam/camelyonpatch_level_2_split_test_x.h5"), ("PCAM", "pcam/camelyonpatch_level_2_split_test_y.h5"),
    ("HatefulMemes", "hateful_memes/test_seen.jsonl"), ("HatefulMemes", "hateful_memes/test_unseen.jsonl")])
def test_a_missing_or_broken_file_is_named(name, path, tmp_path):
    build(name, tmp_path)
    whole = (tmp_path / path).read_bytes()
    (tmp_path / path).write_bytes(whole[:len(whole) // 2] + b"\xff\xfe")
    refused(name, tmp_path, tmp_path / path, "expected")
    (tmp_path / path).unlink()
    refused(name, tmp_path, tmp_path / path, "missing", "expected", f"data verify {name}")


@pytest.mark.parametrize("name", ["OxfordPets", "StanfordCars", "Food101", "Flowers102", "FGVCAircraft", "DTD",
                                  "HatefulMemes"])
def test_an_image_that_is_listed_but_not_there_is_named(name, tmp_path):
    build(name, tmp_path)
    listing = read(name, tmp_path)
    listing.encoded[3].unlink()
    refused(name, tmp_path, listing.ids[3], f"1 of the {len(listing.ids)} images", f"data verify {name}")


@pytest.mark.parametrize("name", ["OxfordPets", "StanfordCars", "Food101", "Flowers102", "FGVCAircraft", "DTD",
                                  "HatefulMemes", "CIFAR10", "CIFAR100", "STL10", "PCAM"])
def test_a_class_outside_is_another_release_and_a_class_without_image_is_not_whole(name, tmp_path):
    build(name, tmp_path)
    with pytest.raises(DatasetError, match="expected one of"):
        READERS[name](tmp_path, "test", CLASSES[name][:-1])
    with pytest.raises(DatasetError, match="no image of 1 of"):
        READERS[name](tmp_path, "test", (*CLASSES[name], "ocarina"))


# what is wrong inside the files

def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_pets_of_another_class_than_their_name_are_refused(tmp_path):
    build("OxfordPets", tmp_path)
    replace(tmp_path / "oxford-iiit-pet/annotations/test.txt", " 2 2 2\n", " 3 2 3\n")
    refused("OxfordPets", tmp_path, "american_bulldog", "the class 3", "expected 2")


def test_memes_without_labels_are_the_challenges_own(tmp_path):
    build("HatefulMemes", tmp_path)
    replace(tmp_path / "hateful_memes/test_seen.jsonl", '"label": 0, ', "")
    refused("HatefulMemes", tmp_path, "test_seen.jsonl", "no label for 2 of 4")


def test_a_label_outside_is_refused(tmp_path):
    build("STL10", tmp_path)
    (tmp_path / "stl10_binary/test_y.bin").write_bytes(bytes([1, 2, 3, 4, 0, 2, 3, 5]))
    refused("STL10", tmp_path, "labels outside its 4 classes (2, the first is -1)")


def test_a_car_outside_is_refused(tmp_path):
    build("StanfordCars", tmp_path)
    path = tmp_path / "stanford_cars/cars_test_annos_withlabels.mat"
    rows = loadmat(path)["annotations"]
    rows["class"][0, 0] = np.array([[0]])
    savemat(path, {"annotations": rows})
    refused("StanfordCars", tmp_path, path, "labels outside its 3 classes (1,")


def test_cars_without_labels_are_refused(tmp_path):
    build("StanfordCars", tmp_path)
    path = tmp_path / "stanford_cars/cars_test_annos_withlabels.mat"
    shutil.copy(tmp_path / "stanford_cars/devkit/cars_test_annos.mat", path)
    refused("StanfordCars", tmp_path, path, "fname and class")


def test_a_flower_without_label_is_refused(tmp_path):
    build("Flowers102", tmp_path)
    labels = loadmat(tmp_path / "flowers-102/imagelabels.mat")["labels"]
    savemat(tmp_path / "flowers-102/imagelabels.mat", {"labels": labels[:, :-1]})
    refused("Flowers102", tmp_path, "setid.mat", f"1 to {labels.size - 1}")


@pytest.mark.parametrize("change", [{"labels": [0, 1, 2]}, {"labels": [0, 1, 2, 3, 0, 1, 2, -1]}, {"data": b"none"},
                                    {"labels": [0, 1, 2, 3, 0, 1, 2, 4]}])
def test_batches_that_do_not_fit_are_refused(change, tmp_path):
    build("CIFAR10", tmp_path)
    path = tmp_path / "cifar-10-batches-py/test_batch"
    path.write_bytes(python2_pickle(pickle.loads(path.read_bytes(), encoding="latin1") | change))
    refused("CIFAR10", tmp_path, path)


class Hostile:
    """Pickles as a call of os.system."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("file", ["test_batch", "batches.meta"])
def test_a_hostile_pickle_is_not_executed(file, protocol, tmp_path):
    build("CIFAR10", tmp_path)
    path, trace = tmp_path / "cifar-10-batches-py" / file, tmp_path / "trace"
    path.write_bytes(pickle.dumps({"data": Hostile(f"touch {trace}"), "label_names": []}, protocol))
    refused("CIFAR10", tmp_path, path, "system", "nothing was executed")
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists(), "the pickle would have done harm"


@pytest.mark.parametrize("shape", [(3, 96, 96, 3), (4, 32, 32, 3)])
def test_patches_that_do_not_fit_their_labels_are_refused(shape, tmp_path):
    build("PCAM", tmp_path)
    path = tmp_path / "pcam/camelyonpatch_level_2_split_test_x.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(shape, np.uint8)
    refused("PCAM", tmp_path, path, shape, (4, 96, 96, 3))


def test_a_damaged_chunk_or_a_shortened_file_costs_its_images_only(tmp_path):
    for name, file in (("PCAM", "pcam/camelyonpatch_level_2_split_test_x.h5"), ("STL10", "stl10_binary/test_X.bin")):
        build(name, tmp_path)
        listing = read(name, tmp_path)
        decoder = Decoder(listing.encoded, listing.ids, "none", 96)
        content = (tmp_path / file).read_bytes()
        if name == "PCAM":
            with h5py.File(tmp_path / file) as opened:
                chunk = opened["x"].id.get_chunk_info(opened["x"].id.get_num_chunks() - 1)
            content = bytearray(content)
            content[chunk.byte_offset:chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
        (tmp_path / file).write_bytes(content if name == "PCAM" else content[:-1])
        assert decoder(np.array([0])).shape == (1, 3, 96, 96)
        with pytest.raises(UnreadableImageError, match=listing.ids[-1]):
            decoder(np.array([len(listing.ids) - 1]))


def test_pcam_without_h5py_says_what_to_install(tmp_path, monkeypatch):
    build("PCAM", tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "other").mkdir()
    refused("PCAM", tmp_path / "other", "there is no pcam/")
    refused("PCAM", tmp_path, "pip install h5py")


# the fixtures themselves

def test_batches_are_written_as_python_2_wrote_them(tmp_path):
    build("CIFAR100", tmp_path)
    content = (tmp_path / "cifar-100-python/test").read_bytes()
    assert b"numpy.core.multiarray\n_reconstruct" in content and b"_codecs" not in content
    assert content[:2] == b"\x80\x02"


def test_pictures_are_of_every_kind(tmp_path):
    build("Caltech101", tmp_path)
    found = [Image.open(path) for path in read("Caltech101", tmp_path).encoded]
    assert {(image.mode, image.format) for image in found} >= {("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"),
                                                              ("P", "GIF"), ("P", "PNG"), ("RGB", "JPEG")}
    assert len({image.size for image in found}) > 5
