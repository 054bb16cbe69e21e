"""Images of one's own: folders of classes, or a CSV file."""

import errno
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as F

from zsar.datasets import load_dataset
from zsar.datasets.own import load_own, own_packed_as, own_packed_folder
from zsar.datasets.packed import pack
from zsar.errors import DatasetError, UnknownNameError, UnreadableImageError


def save(path, seed=0, size=(30, 50)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, (*size, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(["guinea_pig/b.png", "guinea_pig/a.jpg", "axolotl/z.PNG", "axolotl/10.webp"]):
        save(tmp_path / "pets" / name, i)
    (tmp_path / "pets" / "readme.txt").write_text("not a class")
    (tmp_path / "pets" / "axolotl" / ".DS_Store").write_text("")
    save(tmp_path / "pets" / ".cache" / "thumbnail.png")  # a hidden folder is no class
    return tmp_path / "pets"


def test_a_folder_of_class_folders(folder):
    dataset = load_dataset(str(folder))
    assert dataset.ids == ["axolotl/10.webp", "axolotl/z.PNG", "guinea_pig/a.jpg", "guinea_pig/b.png"]
    assert dataset.classnames == ["axolotl", "guinea pig"] and dataset.labels.tolist() == [0, 0, 1, 1]
    assert dataset.layout == "own"
    image = Image.open(folder / "guinea_pig" / "b.png")
    expected = F.to_tensor(F.center_crop(F.resize(image, 256), [224, 224]))
    assert torch.equal(dataset[3][0], expected)


def test_a_folder_with_splits(tmp_path):
    for split, n in (("train", 3), ("test", 2)):
        for i in range(n):
            for name in ("cat", "dog"):
                save(tmp_path / split / name / f"{i}.png", i)
    assert len(load_dataset(f"{tmp_path}/", "train")) == 6 and len(load_dataset(f"{tmp_path}/")) == 4


def test_classes_are_those_of_all_splits(tmp_path):
    for place in ("train/a/1.png", "train/b/1.png", "train/c/1.png", "test/a/2.png", "test/c/2.png"):
        save(tmp_path / place)
    train, test = load_dataset(f"{tmp_path}/", "train"), load_dataset(f"{tmp_path}/")
    assert train.classnames == test.classnames == ["a", "b", "c"] and test.labels.tolist() == [0, 2]
    lines = [f"{split}/{name}/{n}.png,{name},{split}" for split, n, names in (("train", 1, "abc"), ("test", 2, "ac"))
             for name in names]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *lines]))
    assert load_dataset(str(tmp_path / "list.csv")).labels.tolist() == [0, 2]


def test_a_class_may_be_called_none(folder):
    (folder / "list.csv").write_text("path,label\naxolotl/z.PNG,None\naxolotl/10.webp,NA\n")
    assert load_dataset(str(folder / "list.csv")).classnames == ["NA", "None"]


def test_a_csv_file(folder):
    (folder / "list.csv").write_text("label,path,split\naxolotl,axolotl/z.PNG,train\n"
                                     "guinea pig,guinea_pig/b.png,test\nwater dog,axolotl/10.webp,test\n")
    dataset = load_dataset(str(folder / "list.csv"))
    assert dataset.ids == ["axolotl/10.webp", "guinea_pig/b.png"]
    assert dataset.classnames == ["axolotl", "guinea pig", "water dog"]  # of both splits
    assert dataset.labels.tolist() == [2, 1] and dataset.stack()[0].shape == (2, 3, 224, 224)


@pytest.mark.parametrize(("text", "message"), [
    ("file,label\na.png,cat\n", "found the columns file, label, expected path and label; missing: path"),
    ("path,label\naxolotl/z.PNG,cat\nnone.png,dog\n", "1 of 2 images are not there, e.g. .*none.png"),
    ("path,label\naxolotl/z.PNG,cat\naxolotl/10.webp,\n", "rows without a path or a label: 1, the first is row 3"),
    ("path,label\naxolotl/z.PNG,cat\n", "images of 1 class"),
    ("name;class\na.png;cat\n", "expected columns separated by commas, found ';'"),
    ("path;label\na, b.png;cat\n", "expected columns separated by commas, found ';'"),
    ("path\tlabel\na.png\tcat\n", "expected columns separated by commas, found tabs"),
    ("path,label\naxolotl/z.PNG,k\udce4fer\n", "its text is not UTF-8; save it as UTF-8"),
    ("path,label,split\naxolotl/z.PNG,cat,train\n", "no row is of the split test"), ("", "cannot read .* as CSV")])
def test_csv_files_that_do_not_do(text, message, folder):
    (folder / "list.csv").write_text(text, errors="surrogateescape")
    with pytest.raises(DatasetError, match=message):
        load_dataset(str(folder / "list.csv"))


# packed copies

def pack_own(place, root, split="test"):
    pack(load_own(place, split), own_packed_folder(root, place, split), own_packed_as(place, split))


def touch(path):
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def move_to_another_class(folder):
    (folder / "axolotl" / "z.PNG").rename(folder / "guinea_pig" / "z.PNG")


@pytest.mark.parametrize("change", [
    lambda folder: save(folder / "axolotl" / "z.PNG", 9), lambda folder: save(folder / "axolotl" / "new.png"),
    lambda folder: (folder / "axolotl" / "z.PNG").unlink(), lambda folder: touch(folder / "axolotl" / "z.PNG"),
    move_to_another_class, lambda folder: save(folder / "zebra" / "1.png")])
def test_a_packed_copy_is_used_until_something_changes(change, folder, tmp_path, recwarn):
    root = tmp_path / "root"
    pack_own(folder, root)
    packed, files = load_dataset(f"{folder}/", root=root), load_own(folder, "test")
    assert not packed.decodes and packed.ids == files.ids and all(map(torch.equal, packed.stack(), files.stack()))
    assert not recwarn
    change(folder)
    with pytest.warns(UserWarning, match=f"own-pets-.* is stale.* not used: pack again with python -m "
                                          f"zsar data pack {folder} --split test --root {root}$"):
        stale = load_dataset(str(folder), root=root)
    changed = load_own(folder, "test")
    assert stale.decodes and stale.ids == changed.ids and all(map(torch.equal, stale.stack(), changed.stack()))
    pack_own(folder, root)
    assert not load_dataset(str(folder), root=root).decodes


def test_a_csv_file_whose_labels_change_makes_its_copy_stale(folder, tmp_path):
    place, root = folder / "list.csv", tmp_path / "root"
    rows = "path,label,split\naxolotl/z.PNG,cat,train\naxolotl/10.webp,dog,train\nguinea_pig/b.png,{},test\n"
    place.write_text(rows.format("cat"))
    pack_own(place, root, "train")
    assert not load_dataset(str(place), "train", root).decodes
    place.write_text(rows.format("dog"))  # of the other split, the classes are as they were
    assert not load_dataset(str(place), "train", root).decodes
    place.write_text(rows.format("cow"))
    with pytest.warns(UserWarning, match=f"list.csv --split train --root {root}$"):
        assert load_dataset(str(place), "train", root).decodes


def test_places_of_one_name_have_copies_of_their_own(folder, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    shutil.copytree(folder, tmp_path / "other" / "pets")
    mine, other = (own_packed_folder(tmp_path, place, "test") for place in (folder, tmp_path / "other" / "pets"))
    assert mine != other and mine.parent == tmp_path / "packed"
    assert re.fullmatch("own-pets-[0-9a-f]{12}-test", mine.name)
    monkeypatch.chdir(folder)
    assert {own_packed_folder(tmp_path, Path(place), "test") for place in (".", "../pets", folder)} == {mine}


def test_a_file_that_is_gone_is_named_when_it_is_read(folder, tmp_path):
    pack_own(folder, tmp_path / "root")
    (folder / "axolotl" / "gone.png").symlink_to(folder / "nothing.png")
    with pytest.warns(UserWarning, match="is stale"):
        dataset = load_dataset(str(folder), root=tmp_path / "root")
    with pytest.raises(UnreadableImageError, match="axolotl/gone.png"):
        dataset.stack()


def test_a_broken_copy_is_said(folder, tmp_path):
    pack_own(folder, tmp_path)
    (own_packed_folder(tmp_path, folder, "test") / "about.json").write_text("{")
    with pytest.raises(DatasetError, match="cannot read the packed images .* delete that folder"):
        load_dataset(str(folder), root=tmp_path)


def test_a_place_is_written_with_a_slash(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(UnknownNameError, match="unknown dataset 'pets': expected ./pets if that folder"):
        load_dataset("pets")
    with pytest.raises(UnknownNameError, match="did you mean"):
        load_dataset("OxfordPet")


def test_places_that_do_not_do(folder, tmp_path):
    with pytest.raises(DatasetError, match="does not exist: expected a folder of class folders"):
        load_dataset(str(tmp_path / "nothing"))
    with pytest.raises(DatasetError, match="has no training split, which must not be tested on"):
        load_dataset(str(folder), "train")
    with pytest.raises(DatasetError, match="found no image in its folders"):
        load_dataset(str(folder / "axolotl"))


@pytest.mark.parametrize("method", ["exists", "is_dir", "iterdir"])
def test_a_folder_that_must_not_be_read_is_said(method, folder, monkeypatch):
    def refuse(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, method, refuse)
    with pytest.raises(DatasetError, match=f"cannot look into {folder}.* .Permission denied.*change its permissions"):
        load_own(folder, "test")


def test_a_class_folder_without_images_is_named(folder):
    (folder / "zebra").mkdir()
    with pytest.warns(UserWarning, match="pets: no image in zebra, which is no class then") as warned:
        assert load_own(folder, "test").classnames == ["axolotl", "guinea pig"]
    assert len(warned) == 1
