"""The drawn world: the same pictures everywhere, whatever they are rendered with."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reference.make import reference_pictures

from zsar.datasets import load_dataset
from zsar.datasets.drawn import DRAWN_NAMES, LENGTHS, render
from zsar.datasets.drawn.captions import vocabulary, web_pairs
from zsar.datasets.drawn.randomness import Stream
from zsar.datasets.drawn.tasks import TASKS
from zsar.errors import UnknownNameError
from zsar.paths import data_path
from zsar.tokenizer import WordTokenizer

REFERENCE = Path(__file__).parent / "reference"


@pytest.mark.parametrize("name", TASKS)
def test_pictures_match_the_committed_ones_within_one_grey_level(name):
    committed = np.asarray(Image.open(REFERENCE / f"{name}.png")).astype(int)
    assert np.abs(reference_pictures(name).astype(int) - committed).max() <= 1


@pytest.mark.parametrize("name", TASKS)
def test_a_picture_does_not_depend_on_its_neighbours(name):
    together = render(name, "train", np.arange(40))
    alone = np.concatenate([render(name, "train", np.array([i])) for i in (0, 7, 39)])
    assert np.array_equal(together[[0, 7, 39]], alone)
    assert not np.array_equal(together[0], together[len(TASKS[name].classnames) % 40]), "two of a class are the same"


def test_another_process_renders_equal_bytes():
    code = """import hashlib, numpy as np
from zsar.datasets.drawn import render
from zsar.datasets.drawn.tasks import TASKS
print(hashlib.sha256(b"".join(render(name, "test", np.arange(3)).tobytes() for name in TASKS)).hexdigest())"""
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    here = hashlib.sha256(b"".join(render(name, "test", np.arange(3)).tobytes() for name in TASKS)).hexdigest()
    assert there == f"{here}\n"


def test_random_numbers_are_those_of_splitmix64():
    # Vigna's splitmix64.c seeded with 1234567 gives these first three numbers.
    stream = Stream(np.array([1234567], np.uint64))
    assert stream.bits(3)[0].tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_random_numbers_have_the_moments_they_claim():
    stream = Stream.of("moments", 0, np.arange(200))
    uniform, normal = stream.uniform(0, 1, 500), stream.normal(2.0, 500)
    assert abs(uniform.mean() - .5) < .01 and uniform.min() >= 0 and uniform.max() < 1
    assert abs(normal.mean()) < .03 and abs(normal.std() - 2) < .03


def test_the_sixteen_tasks_mirror_the_paper():
    assert len(DRAWN_NAMES) == 16 and DRAWN_NAMES[0] == "DrawnImageNet"
    source = set(TASKS["DrawnImageNet"].classnames)
    assert 40 <= len(source) <= 60
    for name in DRAWN_NAMES[1:]:
        assert not source & set(TASKS[name].classnames), f"{name} shares classes with the source"
        assert len(set(TASKS[name].classnames)) == len(TASKS[name].classnames)


@pytest.mark.parametrize("split", LENGTHS)
def test_items_are_float_images_with_labels_and_stable_ids(split):
    dataset = load_dataset("DrawnDTD", split)
    image, label = dataset[17]
    assert image.shape == (3, 48, 48) and image.dtype == torch.float32 and 0 <= image.min() <= image.max() <= 1
    assert label == int(dataset.labels[17]) and dataset.ids[17] == f"{split}-00017" and dataset.layout == "drawn"
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_a_subset_is_the_seeded_choice_it_says_it_is():
    dataset = load_dataset("DrawnCIFAR10")
    some, again, other = (dataset.subset(50, seed) for seed in (0, 0, 1))
    assert some.ids == again.ids != other.ids and len(set(some.ids)) == 50
    images, labels = some.stack()
    row = dataset.ids.index(some.ids[3])
    assert torch.equal(images[3], dataset[row][0]) and labels[3] == dataset[row][1]
    assert len(dataset.subset(10**6)) == len(dataset)


def test_the_vocabulary_holds_every_caption_class_and_template():
    assert vocabulary() == data_path("drawn", "vocabulary.txt").read_text().split()
    tokenizer = WordTokenizer(vocabulary())
    for task in TASKS.values():
        tokenizer([template.format(name) for template in task.templates for name in task.classnames])
    images, captions = web_pairs(np.arange(600))
    assert images.shape == (600, 3, 48, 48) and images.dtype == np.uint8
    assert (tokenizer(captions).argmax(1) > 0).all()


def test_a_web_pair_depends_on_its_index_alone():
    images, captions = web_pairs(np.arange(100, 160))
    image, caption = web_pairs(np.array([123]))
    assert np.array_equal(images[23], image[0]) and captions[23] == caption[0]


@pytest.mark.parametrize(("name", "split"), [("DrawnImagenet2", "test"), ("DrawnDTD", "val"), ("ImageNte", "test")])
def test_unknown_names_are_told_the_nearest(name, split):
    with pytest.raises(UnknownNameError, match=r"ImageNet|test"):
        load_dataset(name, split)
