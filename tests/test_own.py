"""Images of one's own: folders of classes, or a CSV file."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as F

from zsar.datasets import load_dataset
from zsar.errors import DatasetError


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
    ("file,label\na.png,cat\n", "found the columns file, label, expected path and label; path is missing"),
    ("path,label\naxolotl/z.PNG,cat\nnone.png,dog\n", "1 of 2 images are not there, e.g. .*none.png"),
    ("path,label\naxolotl/z.PNG,cat\naxolotl/10.webp,\n", "1 rows have no path or no label, the first is row 3"),
    ("path,label\naxolotl/z.PNG,cat\n", "images of 1 class"),
    ("path,label,split\naxolotl/z.PNG,cat,train\n", "no row is of the split test"), ("", "cannot read .* as CSV")])
def test_csv_files_that_do_not_do(text, message, folder):
    (folder / "list.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        load_dataset(str(folder / "list.csv"))


def test_places_that_do_not_do(folder, tmp_path):
    with pytest.raises(DatasetError, match="does not exist: expected a folder of class folders"):
        load_dataset(str(tmp_path / "nothing"))
    with pytest.raises(DatasetError, match="has no training split, which must not be tested on"):
        load_dataset(str(folder), "train")
    with pytest.raises(DatasetError, match="found no image in its folders"):
        load_dataset(str(folder / "axolotl"))
