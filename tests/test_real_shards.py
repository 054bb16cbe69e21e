"""Shards of the Hugging Face hub against pandas' and tarfile's plain reading of them, and what can be wrong there."""

import os
import pickle
import shutil
import sys
import tarfile
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from real_fixtures import CLASSES, add_member, build_parquet, build_wds

from zsar.datasets.real import Listing
from zsar.datasets.real.images import Decoder
from zsar.datasets.real.shards import files_to_fetch, match_classes, read_parquet, read_wds
from zsar.errors import DatasetError, UnreadableImageError

PETS = CLASSES["OxfordPets"]
LABELS = [2, 0, 3, 1, 1, 0, 3, 2, 2, 0, 1]


def counted(pictures: list[bytes], labels: list[int]) -> Counter:
    """How often each picture occurs with each label, decoded plainly."""
    images = [np.asarray(Image.open(BytesIO(picture)).convert("RGB")).transpose(2, 0, 1) for picture in pictures]
    return Counter((image.shape, image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


def counted_listing(listing: Listing) -> Counter:
    decoder = Decoder(listing.encoded, listing.ids, "none")
    images = [decoder(np.array([row]))[0] for row in range(len(listing.ids))]
    return Counter((image.shape, image.tobytes(), int(label))
                   for image, label in zip(images, listing.labels, strict=True))


def plain_parquet(folder: Path, part: str = "test") -> tuple[list[bytes], list[int]]:
    table = pandas.concat([pandas.read_parquet(path) for path in sorted(folder.rglob(f"{part}-*.parquet"))])
    image, label = table.columns
    return [row["bytes"] if isinstance(row, dict) else row for row in table[image]], table[label].tolist()


def plain_tars(folder: Path) -> tuple[list[bytes], list[int]]:
    pictures, labels = [], []
    for path in folder.rglob("*.tar"):
        with tarfile.open(path) as tar:
            content = {member.name: tar.extractfile(member).read() for member in tar}
        for name in sorted(content):
            labels.append(int(content[name])) if name.endswith(".cls") else pictures.append(content[name])
    return pictures, labels


def refused(read, folder: Path, *said: str, annotated: tuple[str, ...] = PETS) -> None:
    with pytest.raises(DatasetError) as caught:
        read(folder, "test", annotated)
    message = str(caught.value)
    assert "\n" not in message and folder.name in message
    for text in said:
        assert str(text) in message, message


# which class is which

@pytest.mark.parametrize(("own", "annotated", "expected"), [
    (("abyssinian", "american bulldog", "Basset-Hound", "bengal"), PETS, [0, 1, 2, 3]),
    (("bengal", "abyssinian", "basset_hound", "american_bulldog"), PETS, [3, 0, 2, 1]),
    (("tench, Tinca tinca", "goldfish", "dog", "maillot"), CLASSES["ImageNet"], [0, 1, 2, 3]),
    (("annual crop land", "forest", "brushland or shrubland", "sea or lake"), CLASSES["EuroSAT"], [0, 1, 2, 3]),
    (("abbey", "apartment building outdoor", "bar", "church indoor", "church outdoor"), CLASSES["SUN397"],
     [0, 1, 2, 3, 4]),
    (("F/A-18", "707-320", "747-400", "DHC-8-100"), CLASSES["FGVCAircraft"], [3, 0, 1, 2]),
])
def test_classes_are_matched_by_name_or_else_by_place(own, annotated, expected):
    assert match_classes("it", Path("classes"), own, annotated).tolist() == expected


@pytest.mark.parametrize("own", [
    PETS[:3], (*PETS, "pug"), ("airplane", "bird", "car", "cat"), ("a Bengal", "abyssinian", "bengal", "a hound"),
    ("abyssinian", "abyssinian", "basset hound", "bengal")])
def test_classes_of_another_set_or_order_are_refused(own):
    with pytest.raises(DatasetError, match="another dataset"):
        match_classes("it", Path("classes"), own, PETS)


# which files

@pytest.mark.parametrize(("build", "read", "part", "split"), [
    (build_parquet, read_parquet, "test", "test"), (build_parquet, read_parquet, "validation", "test"),
    (build_parquet, read_parquet, "train", "train"), (build_wds, read_wds, "test", "test"),
    (build_wds, read_wds, "val", "test"), (build_wds, read_wds, "train", "train")])
def test_what_is_fetched_of_a_split_is_what_is_read(build, read, part, split, tmp_path):
    """Without the files of the other splits the same is read."""
    others = ("unsupervised", "train" if split == "test" else "test")
    for name, labels in ((part, LABELS), *((other, [0, 1, 2, 3]) for other in others)):
        build(tmp_path, PETS, labels, part=name)
    files = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    expected = read(tmp_path, split, PETS)
    fetched = files_to_fetch("wds" if build is build_wds else "parquet", files, split)
    assert not any(other in file for file in fetched for other in others)
    for file in set(files) - set(fetched):
        (tmp_path / file).unlink()
    found = read(tmp_path, split, PETS)
    assert found.ids == expected.ids and found.labels.tolist() == LABELS
    assert list(found.encoded) == list(expected.encoded)


def test_both_splits_are_fetched_when_asked_for():
    files = ["data/train-0.parquet", "test/0000.parquet", "valid.parquet", "data/contest-0.parquet", "README.md"]
    assert files_to_fetch("parquet", files, "all") == files[:3]
    assert files_to_fetch("parquet", files, "test") == files[1:3]
    assert files_to_fetch("parquet", files[3:], "test") == ["data/contest-0.parquet"]
    tars = ["classnames.txt", "templates.txt", "test/0.tar", "test/nshards.txt", "train/0.tar", "train/nshards.txt"]
    assert files_to_fetch("wds", tars, "train") == ["train/0.tar", "classnames.txt", "train/nshards.txt"]
    assert files_to_fetch("wds", [*tars[:2], "0.tar"], "test") == ["classnames.txt", "templates.txt", "0.tar"]


# parquet

@pytest.mark.parametrize(("image", "label", "as_struct"), [("image", "label", True), ("image", "label", False),
                                                           ("img", "fine_label", True)])
@pytest.mark.parametrize("files", [1, 3])
def test_parquet_rows_are_pandas_rows(image, label, as_struct, files, tmp_path):
    build_parquet(tmp_path, PETS, LABELS, files=files, image=image, label=label, as_struct=as_struct)
    build_parquet(tmp_path, PETS, [0, 1, 2, 3], part="train")
    pictures, labels = plain_parquet(tmp_path)
    listing = read_parquet(tmp_path, "test", PETS)
    assert list(listing.encoded) == pictures and listing.labels.tolist() == labels == LABELS
    assert listing.ids == sorted(set(listing.ids))
    assert listing.ids[0] == f"data/test-00000-of-{files:05d}.parquet/000000"
    assert counted_listing(listing) == counted(pictures, labels)
    assert read_parquet(tmp_path, "train", PETS).labels.tolist() == [0, 1, 2, 3]


def test_parquet_rows_are_read_in_any_order_and_elsewhere(tmp_path):
    build_parquet(tmp_path, PETS, LABELS)
    listing = read_parquet(tmp_path, "test", PETS)
    expected = list(listing.encoded)
    there = pickle.loads(pickle.dumps(listing)).encoded
    order = np.random.default_rng(0).permutation(len(LABELS))
    assert [there[row] for row in order] == [expected[row] for row in order]


def test_parquet_labels_are_translated(tmp_path):
    build_parquet(tmp_path, [name.lower() for name in PETS[::-1]], LABELS)
    assert read_parquet(tmp_path, "test", PETS).labels.tolist() == [3 - label for label in LABELS]


def test_parquet_without_class_names_counts_the_annotated(tmp_path):
    build_parquet(tmp_path, None, LABELS)
    assert read_parquet(tmp_path, "test", PETS).labels.tolist() == LABELS


def test_hidden_labels_make_validation_the_test(tmp_path):
    build_parquet(tmp_path, PETS, [-1] * 6)
    refused(read_parquet, tmp_path, "with labels")
    build_parquet(tmp_path, PETS, LABELS, part="validation", files=1)
    assert read_parquet(tmp_path, "test", PETS).ids[0].startswith("data/validation-00000")


def test_folders_named_after_splits_are_read(tmp_path):
    build_parquet(tmp_path, PETS, LABELS, files=1)
    (tmp_path / "default" / "test").mkdir(parents=True)
    (tmp_path / "default" / "partial-test").mkdir(parents=True)
    shutil.copy(tmp_path / "data/test-00000-of-00001.parquet", tmp_path / "default/partial-test/0000.parquet")
    shutil.move(tmp_path / "data/test-00000-of-00001.parquet", tmp_path / "default/test/0000.parquet")
    assert read_parquet(tmp_path, "test", PETS).ids[-1] == "default/test/0000.parquet/000010"


def test_half_fetched_parquet_is_said(tmp_path):
    refused(read_parquet, tmp_path, "no parquet files")
    build_parquet(tmp_path, PETS, LABELS, files=3)
    (tmp_path / "data/test-00001-of-00003.parquet").unlink()
    refused(read_parquet, tmp_path, "2 of the 3 files")


def test_broken_parquet_is_named(tmp_path):
    build_parquet(tmp_path, PETS, LABELS)
    path = tmp_path / "data/test-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-200])
    refused(read_parquet, tmp_path, path)


@pytest.mark.parametrize(("columns", "said"), [
    ({"image": [b""], "answer": [0]}, "answer"), ({"picture": [b""], "label": [0]}, "picture"),
    ({"image": [b"", b""], "label": [0, None]}, "no label in 1 of 2"), ({"image": [b""], "label": ["cat"]}, "cat")])
def test_parquet_of_other_columns_is_refused(columns, said, tmp_path):
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "test.parquet")
    refused(read_parquet, tmp_path, tmp_path / "test.parquet", said)


@pytest.mark.parametrize(("labels", "said"), [([0, 1, 2, 3, 4], "outside its 4 classes"), ([0, 1, 2], "Bengal"),
                                              ([0, 1, 2, 3, -1], "the first is -1")])
@pytest.mark.parametrize(("build", "read"), [(build_parquet, read_parquet), (build_wds, read_wds)])
def test_labels_that_are_not_the_classes_are_refused(build, read, labels, said, tmp_path):
    build(tmp_path, PETS, labels)
    refused(read, tmp_path, said)


def test_a_row_without_picture_is_unreadable_only(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"image": pyarrow.array([None, b""], pyarrow.binary()),
                                               "label": [0, 1]}), tmp_path / "test.parquet")
    assert list(read_parquet(tmp_path, "test", ("a", "b")).encoded) == [b"", b""]


def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch):
    build_parquet(tmp_path, PETS, LABELS)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DatasetError, match="pip install pyarrow"):
        read_parquet(tmp_path, "test", PETS)


def test_a_damaged_page_costs_its_images_only(tmp_path):
    build_parquet(tmp_path, PETS, LABELS, files=1)
    path = tmp_path / "data/test-00000-of-00001.parquet"
    with pyarrow.parquet.ParquetFile(path) as file:
        column = file.metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start:start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(content)
    listing = read_parquet(tmp_path, "test", PETS)
    decoder = Decoder(listing.encoded, listing.ids, "crop")
    assert len(decoder(np.array([0, 1, 4]))) == 3
    with pytest.raises(UnreadableImageError, match=f"{listing.ids[2]} "):
        decoder(np.array([2]))


# webdataset

@pytest.mark.parametrize("files", [1, 3])
def test_tars_are_what_tarfile_extracts(files, tmp_path):
    build_wds(tmp_path, [name.replace("_", " ") for name in PETS], LABELS, files=files)
    pictures, labels = plain_tars(tmp_path)
    listing = read_wds(tmp_path, "test", PETS)
    assert sorted(listing.encoded) == sorted(pictures) and len(set(pictures)) == len(LABELS)
    assert listing.labels.tolist() == LABELS and listing.ids[0] == "test/0.tar/s0000000"
    assert listing.ids == sorted(set(listing.ids))
    assert counted_listing(listing) == counted(pictures, labels) == counted_listing(pickle.loads(pickle.dumps(listing)))


def test_tar_labels_are_translated(tmp_path):
    build_wds(tmp_path, PETS[::-1], LABELS)
    assert read_wds(tmp_path, "test", PETS).labels.tolist() == [3 - label for label in LABELS]


def test_members_may_stand_in_any_order_beside_others(tmp_path):
    build_wds(tmp_path, PETS, LABELS, files=1)
    with tarfile.open(tmp_path / "test/0.tar") as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar}
    expected = read_wds(tmp_path, "test", PETS)
    pictures = list(expected.encoded)
    with tarfile.open(tmp_path / "test/0.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("README"))
        for name in sorted(content, key=lambda name: name[::-1]):
            add_member(tar, f"./{name}", content[name])
            add_member(tar, f"./{name[:8]}.json", b"{}")
    found = read_wds(tmp_path, "test", PETS)
    assert found.ids == expected.ids and np.array_equal(found.labels, expected.labels)
    assert list(found.encoded) == pictures


def rewrite(path: Path, change: dict[str, bytes | None], mode: str = "w") -> None:
    """The same tar with other members; None leaves one out."""
    with tarfile.open(path) as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar} | change
    with tarfile.open(path, mode) as tar:
        for name, value in content.items():
            if value is not None:
                add_member(tar, name, value)


@pytest.mark.parametrize(("change", "said"), [
    ({"s0000003.cls": None}, "s0000003"), ({"s0000003.jpg": None}, "s0000003"), ({"s0000003.cls": b"cat"}, "cat"),
    ({"s0000003.cls": b""}, "0.tar")])
def test_a_key_without_label_or_picture_is_named(change, said, tmp_path):
    build_wds(tmp_path, PETS, LABELS)
    rewrite(tmp_path / "test/0.tar", change)
    refused(read_wds, tmp_path, tmp_path / "test/0.tar", said)


@pytest.mark.parametrize("keep", [0, 100, 512, 1300, 3000, -700])
def test_a_tar_that_is_cut_off_is_named(keep, tmp_path):
    build_wds(tmp_path, PETS, LABELS)
    path = tmp_path / "test/1.tar"
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(content[:keep])
    refused(read_wds, tmp_path, path)


def test_a_tar_that_ends_between_two_keys_is_named(tmp_path):
    build_wds(tmp_path, PETS, LABELS)
    path = tmp_path / "test/1.tar"
    with tarfile.open(path) as tar:
        end = tar.getmembers()[4].offset
    path.write_bytes(path.read_bytes()[:end])
    refused(read_wds, tmp_path, path, "cut off")


def test_a_compressed_tar_is_refused(tmp_path):
    build_wds(tmp_path, PETS, LABELS)
    rewrite(tmp_path / "test/1.tar", {}, "w:gz")
    refused(read_wds, tmp_path, tmp_path / "test/1.tar", "uncompressed")


def test_half_fetched_tars_are_said(tmp_path):
    build_wds(tmp_path, PETS, LABELS, files=3)
    (tmp_path / "test/1.tar").unlink()
    refused(read_wds, tmp_path, "2 tars", "nshards.txt, 3")
    shutil.rmtree(tmp_path / "test")
    refused(read_wds, tmp_path, "test/0.tar")
    (tmp_path / "classnames.txt").unlink()
    refused(read_wds, tmp_path, "classnames.txt")


def test_tars_of_another_dataset_are_refused(tmp_path):
    build_wds(tmp_path, CLASSES["STL10"], LABELS)
    refused(read_wds, tmp_path, "airplane", "Abyssinian")


def test_a_tar_that_is_gone_costs_its_images_only(tmp_path):
    build_wds(tmp_path, PETS, LABELS)
    listing = read_wds(tmp_path, "test", PETS)
    (tmp_path / "test/1.tar").unlink()
    decoder = Decoder(listing.encoded, listing.ids, "crop")
    assert len(decoder(np.array([0]))) == 1
    with pytest.raises(UnreadableImageError, match=listing.ids[-1]):
        decoder(np.array([len(LABELS) - 1]))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everywhere")
@pytest.mark.parametrize(("build", "read", "path"), [
    (build_parquet, read_parquet, "data"), (build_parquet, read_parquet, "data/test-00000-of-00002.parquet"),
    (build_wds, read_wds, "test"), (build_wds, read_wds, "test/0.tar"), (build_wds, read_wds, "classnames.txt")])
def test_shards_that_must_not_be_read_are_said(build, read, path, tmp_path):
    build(tmp_path, PETS, LABELS)
    (tmp_path / path).chmod(0o000)
    try:
        refused(read, tmp_path, "ermission")
    finally:
        (tmp_path / path).chmod(0o700)
