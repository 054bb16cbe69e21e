"""Splits of a dataset: parts of it are the same images, with the same labels and ids."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import made_up

from zsar.datasets import ImageDataset
from zsar.errors import DatasetError

SOURCE = made_up(30)


def same_images(part, whole=SOURCE):
    """Whether every image, label and id of ``part`` is one of ``whole``."""
    images, labels = whole.stack()
    rows = [whole.ids.index(name) for name in part.ids]
    found, answers = part.stack()
    return torch.equal(found, images[rows]) and torch.equal(answers, labels[rows])


@settings(deadline=None)
@given(n=st.integers(0, 30), seed=st.integers(0, 2**32 - 1))
def test_held_out_images_and_the_others_are_the_whole(n, seed):
    rest, held_out = SOURCE.hold_out(n, seed)
    assert len(held_out) == n and len(rest) == 30 - n
    assert set(rest.ids) | set(held_out.ids) == set(SOURCE.ids) and not set(rest.ids) & set(held_out.ids)
    assert same_images(rest) and same_images(held_out)
    assert [row.ids for row in SOURCE.hold_out(n, seed)] == [rest.ids, held_out.ids]


@settings(deadline=None)
@given(st.lists(st.integers(0, 29), max_size=20))
def test_selected_rows_stay_in_their_order_and_compose(rows):
    part = SOURCE.select(np.array(rows, np.int64))
    assert part.ids == [SOURCE.ids[row] for row in rows] and same_images(part)
    backwards = part.select(np.arange(len(rows))[::-1].copy())
    assert backwards.ids == part.ids[::-1] and same_images(backwards)


@pytest.mark.parametrize("part", [
    lambda whole: whole.select(np.arange(3)), lambda whole: whole.subset(3), lambda whole: whole.hold_out(3)[0],
    lambda whole: whole.hold_out(3)[1], lambda whole: whole.first_classes(2), ImageDataset.in_memory])
def test_a_part_says_what_the_whole_says(part):
    whole = made_up(12)
    whole.layout, whole.verbatim = "parquet", True
    assert (part(whole).layout, part(whole).verbatim, part(whole).split) == ("parquet", True, "train")


def test_images_are_bytes():
    source = made_up(4)
    floats = ImageDataset("floats", "test", source.classnames, source.templates, source.labels, source.ids,
                          lambda rows: source._read(rows) / 255)
    with pytest.raises(DatasetError, match="floats: its images are read as float64, expected uint8 from 0 to 255"):
        floats.stack()


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_first_classes(k):
    part = SOURCE.first_classes(k)
    assert part.classnames == SOURCE.classnames[:k] and same_images(part)
    assert len(part) == (SOURCE.labels < k).sum() and part.labels.max() == k - 1
    assert SOURCE.classnames == made_up(30).classnames  # the whole is as it was


def test_in_memory_images_are_read_once():
    source, reads = made_up(12), []
    read = source._read
    source._read = lambda rows: reads.append(len(rows)) or read(rows)
    kept = source.in_memory()
    assert reads == [12]
    assert same_images(kept, made_up(12)) and kept.classnames == source.classnames and kept.name == source.name
    assert torch.equal(kept[3][0], made_up(12)[3][0]) and reads == [12]
